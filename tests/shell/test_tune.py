"""`f3prune tune`: one clip in, a pipeline out that every other command takes; bad input is one line and no files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from command_line import Outcome, f3prune
from safetensors.torch import load_file
from tiny_parts import WIDTH, clip, image_vae

from f3prune.core.errors import ArtifactError, InputError
from f3prune.models import TuneAVideoPipeline
from f3prune.models.tune_a_video.clips import read_clip
from f3prune.models.tune_a_video.inversion import invert
from f3prune.pipelines.image_base import inflated
from f3prune.pipelines.sources import resolve
from f3prune.pipelines.video import write_video
from f3prune.steps.tune import TuneOptions, encode, tune

VIDEOS = Path(__file__).parents[2].parent / "shared" / "videos"
FRAMES = 3


def image_unet(**other: Any) -> Any:
    config: dict[str, Any] = {
        "sample_size": 4,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (16, 24),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 2,
    }
    return diffusers.UNet2DConditionModel(**config | other)


def image_pipeline(**other: Any) -> Any:
    tokenizer, encoder = clip()
    parts = {
        "vae": image_vae(),
        "text_encoder": encoder,
        "tokenizer": tokenizer,
        "unet": image_unet(),
        "scheduler": diffusers.DDIMScheduler(
            beta_schedule="scaled_linear", set_alpha_to_one=False, steps_offset=1, clip_sample=False
        ),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    return diffusers.StableDiffusionPipeline(**parts | other)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "image"
    torch.manual_seed(0)
    image_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight frames, brighter and brighter."""
    frames = np.linspace(0, 1, 8, dtype=np.float32)[:, None, None, None] * np.ones((1, 16, 16, 3), np.float32)
    return write_video(frames, tmp_path_factory.mktemp("video") / "clip.mp4")[0]


Command = Callable[..., Outcome]


@pytest.fixture
def run_tune(base: Path, video: Path, tmp_path: Path) -> Command:
    def run(*more: object, video: object = video, base: object = base, prompt: str = "a 7") -> Outcome:
        given = ["tune", video, "--prompt", prompt, "--base", base, "-o", tmp_path / "tuned", "--steps", 2]
        return f3prune(*given, "--frames", FRAMES, "--inversion-steps", 2, *more)

    return run


def test_tuned_model_is_a_pipeline_that_every_command_takes(run_tune: Command, base: Path, tmp_path: Path) -> None:
    outcome = run_tune("--seed", 3)
    assert outcome.code == 0, outcome.err
    tuned, run = tmp_path / "tuned", tmp_path / "run"
    assert f"{tuned}: tuned 2 steps on 3 frames of 8 x 8 pixels" in outcome.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tuned"]
    record = json.loads((tuned / "tuning.json").read_text())
    assert record["prompt"] == "a 7"
    assert record["tuning"]["seed"] == 3
    assert record["base"]["denoiser"] == resolve(str(base)).digest()
    before, after = (load_file(f / "unet" / "diffusion_pytorch_model.safetensors") for f in (base, tuned))
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        name for name in before if name.endswith(("attn1.to_q.weight", "attn2.to_q.weight"))
    }
    assert "tune" not in (tuned / "unet" / "config.json").read_text()
    sizes = ("--steps", 2, "--latents", "inverted")
    for command in (("calibrate", tuned, "-o", run, *sizes), ("prune", run, "--alpha", 0.5)):
        outcome = f3prune(*command)
        assert outcome.code == 0, outcome.err
    assert json.loads((run / "manifest.json").read_text())["steps"]["calibrate"]["facts"]["settings"]["latents"]


def test_reloaded_pipeline_gives_the_same_frames(run_tune: Command, tmp_path: Path) -> None:
    assert run_tune().code == 0
    first = TuneAVideoPipeline.from_pretrained(tmp_path / "tuned")
    first.save_pretrained(tmp_path / "again")
    second = TuneAVideoPipeline.from_pretrained(tmp_path / "again")
    index = json.loads((tmp_path / "again" / "model_index.json").read_text())
    assert index["unet"] == ["f3prune.models", "TuneAVideoUNet"]
    frames = []
    for pipeline in (first, second):
        pipeline.set_progress_bar_config(disable=True)
        given = {"num_inference_steps": 2, "latents": "inverted", "negative_prompt": "a"}
        frames.append(pipeline("a 3", **given).frames)
    assert frames[0].shape == (1, FRAMES, 8, 8, 3)
    np.testing.assert_array_equal(*frames)
    random = [first("a 3", num_inference_steps=1, generator=torch.manual_seed(seed)).frames for seed in (0, 0, 1)]
    np.testing.assert_array_equal(*random[:2])
    assert not np.array_equal(*random[1:])
    (tmp_path / "again" / "inverted.safetensors").write_bytes(b"other")
    with pytest.raises(ArtifactError, match="was altered"):
        TuneAVideoPipeline.from_pretrained(tmp_path / "again")
    (tmp_path / "again" / "inverted.safetensors").unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        TuneAVideoPipeline.from_pretrained(tmp_path / "again")


@pytest.fixture
def fresh(base: Path) -> TuneAVideoPipeline:
    pipeline = inflated(resolve(str(base)), seed=0, frames=FRAMES)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_pipeline_takes_batches_and_forms(fresh: TuneAVideoPipeline) -> None:
    call = {"num_inference_steps": 1, "num_frames": 2, "height": 8, "width": 12}
    videos = fresh(["a 1", "a 2"], output_type="np", **call).frames
    assert videos.shape == (2, 2, 8, 12, 3)
    assert fresh("a 1", output_type="latent", guidance_scale=1.0, **call).frames.shape == (1, 4, 2, 4, 6)
    assert fresh("a 1", output_type="pt", **call).frames.shape == (1, 2, 3, 8, 12)
    assert len(fresh("a 1", output_type="pil", return_dict=False, **call)[0][0]) == 2


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ({}, "give prompt or prompt_embeds"),
        ({"prompt": "abcdefgh"}, r"10 tokens, and the text encoder takes 8: 'gh' would be cut off"),
        ({"prompt": "a", "height": 9}, "height is 9, expected a positive multiple of 2"),
        ({"prompt": "a", "num_frames": 0}, "num_frames is 0"),
        ({"prompt": "a", "output_type": "gif"}, "expected np, pt, pil or latent"),
        ({"prompt": "a", "latents": "inverted"}, "no inverted latents"),
        ({"prompt": "a", "latents": "mine"}, "'mine'"),
        ({"prompt": "a", "latents": torch.zeros(1, 3, 2, 4, 4)}, "1 x 3 x 2 x 4 x 4|1, 3, 2, 4, 4"),
        ({"prompt": ["a", "b"], "negative_prompt": ["c"]}, "1 negative prompts for 2 prompts"),
    ],
)
def test_pipeline_refuses(fresh: TuneAVideoPipeline, call: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        fresh(num_inference_steps=1, **call)


def test_prediction_of_velocity_inverts_like_prediction_of_noise(fresh: TuneAVideoPipeline) -> None:
    """A network whose velocity says the same as another's noise leads to the same latents."""
    epsilon = diffusers.DDIMScheduler.from_config(fresh.scheduler.config)
    velocity = diffusers.DDIMScheduler.from_config(fresh.scheduler.config, prediction_type="v_prediction")
    text, start = torch.zeros(1, 8, WIDTH), torch.randn(1, 4, 2, 4, 4)
    levels = iter([epsilon.final_alpha_cumprod, epsilon.alphas_cumprod[1]])

    def as_velocity(sample: torch.Tensor, step: torch.Tensor, **given: Any) -> tuple[torch.Tensor]:
        alpha, noise = next(levels), fresh.unet(sample, step, **given)[0]
        clean = (sample - (1 - alpha) ** 0.5 * noise) / alpha**0.5
        return (alpha**0.5 * noise - (1 - alpha) ** 0.5 * clean,)

    expected = invert(fresh.unet, epsilon, start, text, 2)
    assert torch.allclose(invert(as_velocity, velocity, start, text, 2), expected, atol=1e-5)
    for steps in (0, 1001):
        with pytest.raises(InputError, match="expected 1 to 1000"):
            invert(fresh.unet, epsilon, start, text, steps)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors") | load_file(
        folder / "inverted.safetensors"
    )


def test_stopped_tuning_resumes_to_the_same_model(
    base: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"frames": FRAMES, "inversion_steps": 1, "steps": 4, "checkpoint_every": 1, "learning_rate": 1e-2}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    tune(whole, TuneOptions(video, "a 7", str(base), **options))
    from f3prune.models.tune_a_video.tuning import Tuner

    step = Tuner.step

    def stop(self: Tuner, *given: torch.Tensor) -> float:
        if self.done == 2:
            raise KeyboardInterrupt
        return step(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Tuner, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            tune(parts, TuneOptions(video, "a 7", str(base), **options))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts.tuning.safetensors", "whole"]
    with pytest.raises(InputError, match="give `resume=True`"):
        tune(parts, TuneOptions(video, "a 7", str(base), **options))
    with pytest.raises(ArtifactError, match="another video, prompt, base or other options"):
        tune(parts, TuneOptions(video, "a 8", str(base), resume=True, **options))
    with pytest.raises(InputError, match="`steps` of at least 2"):
        tune(parts, TuneOptions(video, "a 7", str(base), resume=True, **options | {"steps": 1}))
    saved = (tmp_path / "parts.tuning.safetensors").read_bytes()
    (tmp_path / "parts.tuning.safetensors").write_bytes(saved[:100])
    with pytest.raises(ArtifactError, match="cannot be read"):
        tune(parts, TuneOptions(video, "a 7", str(base), resume=True, **options))
    (tmp_path / "parts.tuning.safetensors").write_bytes(saved)
    tune(parts, TuneOptions(video, "a 7", str(base), resume=True, **options))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts", "whole"]
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(parts)[name]), name


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--frames", 9), ("too short", "8 of them")),
        (("--rate", 4), ("too short", "need 9 frames", "2 of them")),
        (("--start", 8), ("too short", "0 of them")),
        (("--size", 9), ("--size is 9", "multiple of 2", "8 or 10")),
        (("--size", 0), ("0", "--help")),
        (("--steps", 0), ("0", "--help")),
        (("--lr", "nan"), ("nan", "learning rate", "--help")),
        (("--lr", 2), ("2", "learning rate", "--help")),
        (("--rate", 0), ("0", "--help")),
        (("--start", -1), ("-1", "--help")),
        (("--seed", -1), ("-1", "--help")),
        (("--inversion-steps", 5000), ("5000", "1 to 1000")),
        (("--resume",), ("no checkpoint", "tuned.tuning.safetensors")),
    ],
)
def test_bad_options_are_one_line(
    run_tune: Command, tmp_path: Path, more: tuple[object, ...], says: tuple[str, ...]
) -> None:
    refused(run_tune(*more), *says)
    assert not list(tmp_path.iterdir())


def refused(outcome: Outcome, *says: str) -> None:
    assert outcome.code == 2, outcome.err
    assert outcome.err.count("\n") == 1, outcome.err
    for text in says:
        assert text in outcome.err


def test_bad_videos_are_one_line(run_tune: Command, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("no video at all")
    refused(run_tune(video=tmp_path / "notes.mp4"), "notes.mp4", "cannot be decoded")
    refused(run_tune(video=tmp_path / "none.mp4"), "none.mp4", "does not exist")
    refused(run_tune(video=tmp_path), "is a directory")
    playlist = tmp_path / "list.mp4"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    refused(run_tune(video=playlist), "list.mp4", "cannot be decoded")
    assert not (tmp_path / "tuned").exists()


def test_bad_prompts_are_one_line(run_tune: Command, tmp_path: Path) -> None:
    refused(run_tune(prompt="  "), "--prompt is empty")
    refused(run_tune(prompt="much too long a text"), "tokens", "would be cut off")
    assert not list(tmp_path.iterdir())


def test_bad_outputs_are_one_line(run_tune: Command, tmp_path: Path) -> None:
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "mine.txt").write_text("kept")
    refused(run_tune(), "exists already")
    assert (tmp_path / "tuned" / "mine.txt").read_text() == "kept"
    refused(run_tune("-o", tmp_path / "tuned" / "mine.txt"), "exists already")
    refused(run_tune("-o", tmp_path / "tuned" / "mine.txt" / "out"), "is a file")


def test_bad_bases_are_one_line(run_tune: Command, base: Path, tiny_pipeline: Path, tmp_path: Path) -> None:
    refused(run_tune(base=tmp_path / "nowhere"), "nowhere")
    refused(run_tune(base=base / "unet"), "a denoiser alone", "zoo:digits-image")
    refused(run_tune(base=tiny_pipeline), "CogVideoXPipeline", "zoo:digits-image")
    image_pipeline(unet=image_unet(in_channels=9)).save_pretrained(tmp_path / "inpainting")
    refused(run_tune(base=tmp_path / "inpainting"), "denoises 9 channels", "inpainting")
    weights_file = tmp_path / "inpainting" / "vae" / "diffusion_pytorch_model.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:50])
    refused(run_tune(base=tmp_path / "inpainting"), "could not be loaded")
    assert not (tmp_path / "tuned").exists()


def test_inverted_latents_need_a_tuned_model(tiny_pipeline: Path, tmp_path: Path) -> None:
    given = ("calibrate", tiny_pipeline, "-o", tmp_path / "run", "--steps", 1, "--latents", "inverted")
    refused(f3prune(*given), "--latents inverted", "was not tuned")


def test_sampling_gives_an_inverted_clip_back(
    fresh: TuneAVideoPipeline, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the prediction does not depend on the latents, the way back is the way there, level by level."""
    latents, _ = encode(fresh, read_clip(video, FRAMES, 8, 8))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))

    class Told(torch.nn.Module):
        config, device, dtype = fresh.unet.config, torch.device("cpu"), torch.float32

        def forward(self, sample: torch.Tensor, timestep: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
            return (noise * (1 + timestep / 1000),)

    scheduler = diffusers.DDIMScheduler.from_config(fresh.scheduler.config)
    start = invert(Told(), scheduler, latents, torch.zeros(1, 8, WIDTH), 10)
    assert float((start - latents).norm()) > float(latents.norm())
    monkeypatch.setattr(fresh, "unet", Told())
    again = fresh("a 7", latents=start, num_inference_steps=10, guidance_scale=1.0, output_type="latent").frames
    assert float((again - latents).abs().max()) < 1e-4


@pytest.mark.skipif(not VIDEOS.is_dir(), reason="the real videos are not beside the project")
def test_one_step_on_a_real_video(run_tune: Command, tmp_path: Path) -> None:
    outcome = run_tune("--steps", 1, "--rate", 2, "--size", 16, video=VIDEOS / "car-turn.mp4")
    assert outcome.code == 0, outcome.err
    assert "3 frames of 16 x 16 pixels" in outcome.out
    pipeline = TuneAVideoPipeline.from_pretrained(tmp_path / "tuned")
    assert pipeline.inverted is not None
    assert pipeline.inverted.shape == (1, 4, FRAMES, 8, 8)
