"""The same commands serve every kind of pipeline: latents of any rank, any text encoder, images, cut prompts."""

from __future__ import annotations

import copy
import inspect
import json
from pathlib import Path
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from command_line import Outcome, f3prune
from diffusers import AutoencoderKLCogVideoX
from PIL import Image
from tiny_pipelines import CALIBRATED_ALONE, FRAMES_MADE, MAKERS, WITH_IMAGES, ltx, save, skyreels_forcing

from f3prune.calibration import Calibration
from f3prune.core.errors import InputError
from f3prune.core.run_directory import RunDirectory
from f3prune.families import TokenGrid, family_of
from f3prune.pipelines.pipeline_runs import (
    GenerationSettings,
    check_made,
    needs_image,
    run_prompt,
    takes_image,
    watch_steps,
)
from f3prune.steps._state import RunState
from f3prune.steps.check import pruned_torch
from f3prune.steps.sessions import engine_pipeline

FAMILY_CLASSES = {
    "wan": "WanTransformer3DModel",
    "ltx": "LTXVideoTransformer3DModel",
    "cogvideox": "CogVideoXTransformer3DModel",
    "consisid": "ConsisIDTransformer3DModel",
    "easyanimate": "EasyAnimateTransformer3DModel",
    "cosmos": "CosmosTransformer3DModel",
}


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Two prompts of different lengths, with an image each."""
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "prompts.jsonl"


def write(file: Path, images: bool) -> None:
    rows = [{"prompt": text} | ({"image": "picture.png"} if images else {}) for text in ("a 3 moving left", "a 4")]
    file.write_text("\n".join(json.dumps(row) for row in rows))


def calibrate(family: str, prompts: Path, tmp_path: Path) -> tuple[Outcome, Path]:
    model = save(family, tmp_path / "model")
    write(prompts, images=family in WITH_IMAGES)
    sizes = [part for name, value in MAKERS[family][1].items() for part in (f"--{name.replace('_', '-')}", value)]
    run = tmp_path / "run"
    return f3prune("calibrate", model, "-o", run, "--prompts", prompts, "--steps", 2, *sizes), run


@pytest.mark.parametrize("family", MAKERS)
def test_calibrate_and_prune(family: str, prompts: Path, tmp_path: Path) -> None:
    outcome, run = calibrate(family, prompts, tmp_path)
    assert outcome.code == 0, outcome.err
    assert f"sites of {family}, 2 steps, 2 prompts" in outcome.out
    facts = json.loads((run / "manifest.json").read_text())["steps"]["calibrate"]["facts"]
    assert len(facts["text_lengths"]) == (2 if family == "latte" else 1)
    outcome = f3prune("prune", run, "--alpha", 0.5)
    assert outcome.code == 0, outcome.err
    assert "sites pruned" in outcome.out


@pytest.mark.slow(reason="a whole run of every family")
@pytest.mark.parametrize("family", [family for family in MAKERS if family not in CALIBRATED_ALONE])
def test_generate_with_the_engine(family: str, prompts: Path, tmp_path: Path) -> None:
    _, run = calibrate(family, prompts, tmp_path)
    for command in (("prune", run, "--alpha", 0.5), ("export", run), ("build", run), ("check", run)):
        outcome = f3prune(*command)
        assert outcome.code == 0, outcome.err
    image = ("--image", tmp_path / "picture.png") if family in WITH_IMAGES else ()
    outcome = f3prune("generate", run, "--prompt", "the digit 5", "-o", tmp_path / "out.gif", *image)
    assert outcome.code == 0, outcome.err
    frames = FRAMES_MADE.get(family, MAKERS[family][1]["num_frames"])
    assert f"{frames} frames of {MAKERS[family][1]['width']} x {MAKERS[family][1]['height']} pixels" in outcome.out


@pytest.mark.slow(reason="a whole run")
def test_sound_comes_through_the_engine(prompts: Path, tmp_path: Path) -> None:
    """Check compares it at every call, and whole generations of LTX-2 sound as the pruned model in PyTorch does."""
    _, directory = calibrate("ltx2", prompts, tmp_path)
    for command in (("prune", "--alpha", 1.0), ("export",), ("build",), ("check", "--json", tmp_path / "check.json")):
        outcome = f3prune(command[0], directory, *command[1:])
        assert outcome.code == 0, outcome.err
    steps = json.loads((tmp_path / "check.json").read_text())["export"]["steps"]
    assert [step["output"] for step in steps[:2]] == ["sample", "audio_sample"]
    assert "audio_sample" in outcome.out
    state = RunState.of(RunDirectory(directory))
    with engine_pipeline(state) as pipeline:
        heard = run_prompt(pipeline, state.settings, state.prompts[0], 0, state.family, whole=True).audio
        pipeline.transformer = pruned_torch(state, torch.device("cpu"))
        expected = run_prompt(pipeline, state.settings, state.prompts[0], 0, state.family, whole=True).audio
        pipeline.transformer = state.load_pipeline(torch.float32, torch.device("cpu")).transformer
        dense = run_prompt(pipeline, state.settings, state.prompts[0], 0, state.family, whole=True).audio
    assert heard.std() > 0
    changed = (dense - expected).norm()
    assert changed > 1e-4 * expected.norm(), "pruning changed no sound: the test shows nothing"
    assert (heard - expected).norm() < 0.05 * changed


def test_image_models_ask_for_images(prompts: Path, tmp_path: Path) -> None:
    model = save("svd", tmp_path / "model")
    outcome = f3prune("calibrate", model, "-o", tmp_path / "run", "--steps", 1)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "has none" in outcome.err
    assert "picture.png" in outcome.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--height", 40, "expected a multiple of 16: try 32 or 48"),
        ("--width", 7, "expected a multiple of 16: try 16 or 32"),
        ("--num-frames", 7, "a count that WanPipeline does not make: try 5 or 9"),
        ("--num-frames", 8, "a count that WanPipeline does not make: try 5 or 9"),
    ],
)
def test_sizes_are_refused_with_the_nearest_ones(tmp_path: Path, option: str, value: int, says: str) -> None:
    model = save("wan", tmp_path / "model")
    outcome = f3prune("calibrate", model, "-o", tmp_path / "run", "--steps", 1, option, value)
    assert outcome.code == 2
    assert outcome.err == f"f3prune: {option} is {value}, {says}\n"
    assert not (tmp_path / "run").exists()


def test_settings_without_a_meaning_are_refused(prompts: Path, tmp_path: Path) -> None:
    model = save("svd", tmp_path / "model")
    prompts.write_text('{"image": "picture.png", "negative_prompt": "blurred"}')
    outcome = f3prune("calibrate", model, "-o", tmp_path / "run", "--prompts", prompts, "--steps", 1)
    assert outcome.code == 2
    assert "negative_prompt 'blurred' has no meaning for StableVideoDiffusionPipeline" in outcome.err


@pytest.mark.parametrize(
    ("family", "temporal"),
    [("wan", 4), ("ltx", 8), ("cogvideox", 4), ("consisid", 4), ("easyanimate", 4), ("cosmos", 8)],
)
def test_frames_made_are_those_that_the_decoder_gives(tiny_pipeline: Path, family: str, temporal: int) -> None:
    """A pipeline makes the latent frames that it counts; the decoder says how many frames those are."""
    if family == "cogvideox":
        vae = AutoencoderKLCogVideoX.from_pretrained(tiny_pipeline / "vae")
    else:
        vae = MAKERS[family][0]().vae
    channels = vae.config.get("latent_channels") or vae.config.z_dim
    for latent_frames in range(1, 8):
        with torch.no_grad():
            decoded = vae.decode(torch.zeros(1, channels, latent_frames, 2, 2), return_dict=False)
        for asked in range(temporal * (latent_frames - 1) + 1, temporal * latent_frames + 1):
            assert family_of(FAMILY_CLASSES[family]).frames_made(asked, temporal) == decoded[0].shape[2]


def test_no_frame_of_allegro_stands_alone() -> None:
    made = family_of("AllegroTransformer3DModel").frames_made
    assert [made(frames, 4) for frames in (1, 86, 87, 88, 89)] == [4, 88, 92, 88, 92]


def test_helios_makes_whole_chunks_and_chronoedit_two_latent_frames() -> None:
    helios = family_of("HeliosTransformer3DModel").frames_made
    # 132 frames, the pipeline's default, are four chunks of 33; what is over a whole latent frame is cut off.
    assert [helios(frames, 4) for frames in (1, 33, 34, 65, 132, 129)] == [33, 33, 65, 65, 129, 129]
    chronoedit = family_of("ChronoEditTransformer3DModel").frames_made
    assert [chronoedit(frames, 4) for frames in (5, 81)] == [5, 5]


def test_what_a_pipeline_made_is_held_against_what_was_asked() -> None:
    frames = np.zeros((9, 32, 48, 3), dtype=np.float32)
    check_made(frames, GenerationSettings(num_frames=9, height=32, width=48), "P")
    check_made(frames, GenerationSettings(), "P")
    for option, asked, made in (("num_frames", 10, 9), ("height", 40, 32), ("width", 50, 48)):
        with pytest.raises(InputError, match=f"`{option}` is {asked}, and P made {made}"):
            check_made(frames, GenerationSettings(**{option: asked}), "P")
    check_made(frames, GenerationSettings(num_frames=8), "P", whole_windows=True)
    for option, asked in (("num_frames", 10), ("height", 31)):
        with pytest.raises(InputError, match=f"`{option}` is {asked}, and P made"):
            check_made(frames, GenerationSettings(**{option: asked}), "P", whole_windows=True)


@pytest.mark.parametrize("images", [False, True])
def test_an_image_that_may_be_given_may_be_left_out(prompts: Path, tmp_path: Path, images: bool) -> None:
    torch.manual_seed(0)
    ltx(diffusers.LTXConditionPipeline).save_pretrained(tmp_path / "model")
    write(prompts, images)
    sizes = [word for name, value in MAKERS["ltx"][1].items() for word in (f"--{name.replace('_', '-')}", value)]
    options = ["--prompts", prompts, "--num-prompts", 1, "--steps", 2, *sizes]
    outcome = f3prune("calibrate", tmp_path / "model", "-o", tmp_path / "run", *options)
    assert outcome.code == 0, outcome.err
    assert Calibration.load(tmp_path / "run" / "aas.safetensors").grid == TokenGrid(3, 2, 3)


@pytest.mark.parametrize(
    ("name", "takes", "needs"),
    [
        ("LTXPipeline", False, False),
        ("LTXConditionPipeline", True, False),
        ("LTXImageToVideoPipeline", True, True),
        ("WanImageToVideoPipeline", True, True),
        ("I2VGenXLPipeline", True, True),
        ("StableVideoDiffusionPipeline", True, True),
        ("CogVideoXImageToVideoPipeline", True, True),
        ("HunyuanVideoImageToVideoPipeline", True, True),
        ("AnimateDiffPipeline", False, False),
        ("WanVACEPipeline", True, False),
        ("ConsisIDPipeline", True, True),
        ("Cosmos2VideoToWorldPipeline", True, True),
        ("Cosmos2_5_PredictBasePipeline", True, False),
        ("HeliosPipeline", True, False),
    ],
)
def test_whether_a_pipeline_takes_an_image(name: str, takes: bool, needs: bool) -> None:
    cls = getattr(diffusers, name)
    pipeline = cls.__new__(cls)
    assert (takes_image(pipeline), needs_image(pipeline)) == (takes, needs)


def test_a_pipeline_may_copy_its_scheduler() -> None:
    """A copy steps itself and not the original, and of an original and its copies one is counted."""
    scheduler = diffusers.DDIMScheduler()
    scheduler.set_timesteps(4)
    pipeline, steps = SimpleNamespace(scheduler=scheduler), []
    with watch_steps(pipeline, lambda: steps.append(1)):
        copies = [copy.deepcopy(scheduler) for _ in range(2)]
        assert "eta" in inspect.signature(scheduler.step).parameters
        assert type(scheduler).__name__ == "DDIMScheduler"
        for timestep in scheduler.timesteps:
            for each in copies:
                each.step(torch.ones(1, 1), timestep, torch.ones(1, 1))
        assert copies[0].__class__.step.__wrapped__ is diffusers.DDIMScheduler.step
    assert len(steps) == 4
    assert type(scheduler) is diffusers.DDIMScheduler


def test_a_step_that_is_taken_twice_counts_once() -> None:
    """As Cosmos does it: the first time for the clean sample."""
    scheduler = diffusers.EDMEulerScheduler()
    scheduler.set_timesteps(4)
    steps: list[int] = []
    with watch_steps(SimpleNamespace(scheduler=scheduler), lambda: steps.append(1)):
        for timestep in scheduler.timesteps:
            scheduler.step(torch.ones(1, 1), timestep, torch.ones(1, 1))
            scheduler._step_index -= 1
            scheduler.step(torch.ones(1, 1), timestep, torch.ones(1, 1))
    assert len(steps) == 4


def test_a_pipeline_of_a_scheduler_per_frame_calibrates(tmp_path: Path) -> None:
    pytest.importorskip("ftfy", reason="a dependency that this environment was made without")
    torch.manual_seed(0)
    skyreels_forcing().save_pretrained(tmp_path / "model")
    sizes = [word for name, value in MAKERS["wan"][1].items() for word in (f"--{name.replace('_', '-')}", value)]
    options = ["--num-prompts", 1, "--steps", 2, *sizes]
    outcome = f3prune("calibrate", tmp_path / "model", "-o", tmp_path / "run", *options)
    assert outcome.code == 0, outcome.err
    assert "2 steps" in outcome.out


@pytest.mark.slow(reason="two builds of a graph")
def test_a_graph_of_one_prompt_takes_prompts_of_any_length_where_padding_is_cut(prompts: Path, tmp_path: Path) -> None:
    model = save("latte", tmp_path / "model")
    write(prompts, images=False)
    run = tmp_path / "run"
    sizes = [word for name, value in MAKERS["latte"][1].items() for word in (f"--{name.replace('_', '-')}", value)]
    for command in (
        ("calibrate", model, "-o", run, "--prompts", prompts, "--num-prompts", 1, "--steps", 2, *sizes),
        ("prune", run, "--alpha", 0.5, "--score", "aas"),
        ("export", run),
        ("build", run),
        ("generate", run, "--prompt", "a 3 moving left and a 5 moving up", "-o", tmp_path / "long.gif"),
        ("generate", run, "--prompt", "3", "-o", tmp_path / "short.gif"),
    ):
        outcome = f3prune(*command)
        assert outcome.code == 0, outcome.err
    lengths = json.loads((run / "manifest.json").read_text())["steps"]["calibrate"]["facts"]["text_lengths"]
    assert len(lengths) == 2
    assert min(lengths) < max(lengths)
