"""Sampling, DDIM inversion and tuning against recordings of the original's own loops, step by step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from f3prune.models import TuneAVideoPipeline, TuneAVideoUNet
from f3prune.models.tune_a_video.inversion import invert
from f3prune.models.tune_a_video.tuning import Tuner, TuningConfig

FIXTURES = Path(__file__).parents[2].parent / "shared" / "oracle" / "tune-a-video"
BOUND = 1e-4
DRIFT = 3e-5
"""Of a whole loop, relative to the largest value: what the recordings themselves lose in fp32."""

pytestmark = pytest.mark.skipif(
    not FIXTURES.is_dir(), reason="the recordings of the original are not beside the project"
)

RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class Recording:
    """A case: its facts and its arrays as tensors."""

    def __init__(self, name: str) -> None:
        self.facts: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
        self._arrays = np.load(FIXTURES / f"{name}.npz", allow_pickle=False)

    def __getitem__(self, key: str) -> torch.Tensor:
        return torch.from_numpy(self._arrays[key])

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
        names = [name for name in self._arrays.files if name.startswith(prefix)]
        return {name.removeprefix(prefix): self[name] for name in names}

    def unet(self, config: dict[str, Any]) -> TuneAVideoUNet:
        unet = TuneAVideoUNet(**config)
        unet.load_state_dict(self.under("param/"))
        return unet.eval()


def scheduler(facts: dict[str, Any]) -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(**{key: value for key, value in facts.items() if key != "cls"})


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max())


@pytest.fixture(scope="module")
def sampling() -> Recording:
    return Recording("case3_sampling")


@pytest.fixture(scope="module")
def pipeline(sampling: Recording) -> TuneAVideoPipeline:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(**sampling.facts["vae_config"])
    state = sampling.under("vae/")
    for old, new in RENAMED.items():
        state = {name.replace(f"attentions.0.{old}.", f"attentions.0.{new}."): value for name, value in state.items()}
    missing, unexpected = vae.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.startswith(("encoder.", "quant_conv.")) for name in missing)
    pipe = TuneAVideoPipeline(
        vae=vae.eval(),
        text_encoder=None,
        tokenizer=None,
        unet=sampling.unet(sampling.facts["unet_config"]),
        scheduler=scheduler(sampling.facts["scheduler"]),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


class Watched:
    """A pipeline's scheduler that keeps what each step received and gave, and may start each step where it is told."""

    def __init__(self, pipeline: TuneAVideoPipeline) -> None:
        self.noise: list[torch.Tensor] = []
        self.samples: list[torch.Tensor] = []
        self._inner = pipeline.scheduler

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def step(self, noise: torch.Tensor, timestep: torch.Tensor, sample: torch.Tensor, eta: float = 0.0) -> Any:
        given = self._inner.step(noise, timestep, sample, eta=eta)
        self.noise.append(noise)
        self.samples.append(given.prev_sample)
        return given


def sample(pipeline: TuneAVideoPipeline, case: Recording, run: dict[str, Any], latents: torch.Tensor, kind: str) -> Any:
    without, towards = case[f"in/{run['name']}/text_embeddings"].chunk(2)
    return pipeline(
        prompt_embeds=towards,
        negative_prompt_embeds=without,
        num_inference_steps=run["num_inference_steps"],
        guidance_scale=run["guidance_scale"],
        latents=latents,
        output_type=kind,
    ).frames


def start_of(case: Recording, run: dict[str, Any]) -> torch.Tensor:
    return case["out/inv/all_latents"][-1] if run["name"] == "from_inverted" else case["in/latents"]


@pytest.mark.parametrize("name", ["ddim10_g7.5", "ddim50_g12.5", "from_inverted"])
def test_sampling_follows_the_original(
    name: str, sampling: Recording, pipeline: TuneAVideoPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = next(run for run in sampling.facts["sampling_runs"] if run["name"] == name)
    watched = Watched(pipeline)
    monkeypatch.setattr(pipeline, "scheduler", watched)
    final = sample(pipeline, sampling, run, start_of(sampling, run), "latent")
    assert torch.equal(watched.timesteps, sampling[f"in/{name}/timesteps"])
    trajectory, noise = sampling[f"out/{name}/trajectory"], sampling[f"out/{name}/guided_noise"]
    assert len(watched.samples) == len(trajectory)
    for found, wanted in ((watched.samples, trajectory), (watched.noise, noise)):
        for mine, theirs in zip(found, wanted, strict=True):
            assert distance(mine, theirs) <= max(BOUND, DRIFT * float(theirs.abs().max()))
    assert torch.equal(final, watched.samples[-1])
    wanted = sampling[f"out/{name}/final_latents"]
    assert distance(final, wanted) <= BOUND * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize("name", ["ddim10_g7.5", "from_inverted"])
def test_each_guided_step_alone(name: str, sampling: Recording, pipeline: TuneAVideoPipeline) -> None:
    """From the recorded latents before it, so that nothing accumulates."""
    run = next(run for run in sampling.facts["sampling_runs"] if run["name"] == name)
    steps = scheduler(sampling.facts["scheduler"])
    steps.set_timesteps(run["num_inference_steps"])
    text = sampling[f"in/{name}/text_embeddings"]
    before = start_of(sampling, run)
    for timestep, noise, after in zip(
        steps.timesteps, sampling[f"out/{name}/guided_noise"], sampling[f"out/{name}/trajectory"], strict=True
    ):
        with torch.no_grad():
            without, towards = pipeline.unet(torch.cat([before] * 2), timestep, text).sample.chunk(2)
        guided = without + run["guidance_scale"] * (towards - without)
        assert distance(guided, noise) <= BOUND
        assert distance(steps.step(noise, timestep, before).prev_sample, after) <= BOUND
        before = after


@pytest.mark.parametrize("name", ["ddim10_g7.5", "from_inverted"])
def test_videos_are_decoded_like_the_original(name: str, sampling: Recording, pipeline: TuneAVideoPipeline) -> None:
    run = next(run for run in sampling.facts["sampling_runs"] if run["name"] == name)
    found = sample(pipeline, sampling, run, start_of(sampling, run), "np")
    wanted = sampling[f"out/{name}/video"].permute(0, 2, 3, 4, 1)
    assert found.dtype == np.float32
    assert distance(torch.from_numpy(found), wanted) <= BOUND


def test_inversion_follows_the_original(sampling: Recording, pipeline: TuneAVideoPipeline) -> None:
    kept: list[torch.Tensor] = []
    calls: list[int] = []
    wanted = sampling["out/inv/all_latents"]
    handle = pipeline.unet.register_forward_pre_hook(lambda _, inputs: calls.append(int(inputs[1])))
    try:
        last = invert(
            pipeline.unet,
            scheduler(sampling.facts["scheduler"]),
            sampling["in/inv/video_latent"],
            sampling["in/inv/encoder_hidden_states"],
            steps=sampling.facts["inversion"]["num_inv_steps"],
            on_step=kept.append,
        )
    finally:
        handle.remove()
    assert calls == sampling["in/inv/timesteps_in_call_order"].tolist()
    assert distance(wanted[0], sampling["in/inv/video_latent"]) == 0.0
    for mine, theirs in zip(kept, wanted[1:], strict=True):
        assert distance(mine, theirs) <= BOUND
    assert torch.equal(last, kept[-1])


def test_tuning_follows_the_original() -> None:
    case = Recording("case4_training")
    unet = case.unet(case.facts["config"]).train()
    told = case.facts["optimizer"]
    config = TuningConfig(
        steps=3,
        learning_rate=told["lr"],
        betas=tuple(told["betas"]),
        epsilon=told["eps"],
        weight_decay=told["weight_decay"],
        clip_norm=told["clip_grad_norm"],
    )
    frozen = {name: value.clone() for name, value in unet.state_dict().items()}
    tuner = Tuner(unet, scheduler(case.facts["noise_schedule"]), case["in/encoder_hidden_states"], config)
    assert set(tuner.trained) == set(case.facts["trainable_parameters"])
    latents = case["in/latents"]
    for step in range(3):
        noise, timestep = case[f"in/step{step}/noise"], case[f"in/step{step}/timestep"]
        noisy = tuner.scheduler.add_noise(latents, noise, timestep)
        assert distance(noisy, case[f"out/step{step}/noisy_latents"]) <= BOUND
        with torch.no_grad():
            predicted = unet(noisy, timestep, tuner.text).sample
        assert distance(predicted, case[f"out/step{step}/model_pred"]) <= BOUND
        if step == 0:
            tuner.loss(latents, noise, timestep).backward()
            gradients = {name: value.grad.clone() for name, value in tuner.trained.items() if value.grad is not None}
            recorded = case.under("grad/")
            assert set(gradients) == set(recorded)
            assert max(distance(gradients[name], value) for name, value in recorded.items()) <= BOUND
            norm = torch.stack([value.norm() for value in gradients.values()]).norm()
            assert abs(float(norm) - case.facts["grad_norms_before_clip"][0]) <= BOUND
        assert abs(tuner.step(latents, noise, timestep) - case.facts["losses"][step]) <= BOUND
    after = case.under("after/")
    assert set(after) == set(tuner.trained)
    for name, value in unet.state_dict().items():
        if name in after:
            assert distance(value, after[name]) <= BOUND, name
            assert not torch.equal(value, frozen[name]), name
        else:
            assert torch.equal(value, frozen[name]), name
