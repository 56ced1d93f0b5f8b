"""TensorRT-RTX engines on the GPU against PyTorch there: every family, both half precisions, graphs, stages, caches.

``graphs`` holds the exported graphs; they are made on the CPU where they are missing, which takes minutes.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from _timing import once
from _visit import Visit

from f3prune.calibration import Masks, SiteMask, Stage, prune_denoiser
from f3prune.calibration.replacements import Local
from f3prune.core.calls import sample_of
from f3prune.core.json_values import json_values
from f3prune.core.tensors import torch_dtype
from f3prune.core.weights import randomize_weights
from f3prune.engines import BuildConfig, EngineDenoiser, Session, build_engine, open_session, parity
from f3prune.engines.cogvideo import EngineCogVideo, build_autoregressive
from f3prune.exporter import ExportConfig, export_autoregressive, export_denoiser, flatten_arguments
from f3prune.families import family_of
from f3prune.models import CogVideo, CogVideoConfig
from f3prune.models.cogvideo.generation import generate_tokens
from f3prune.models.cogvideo.sampling import GreedySampler
from f3prune.testing import TINY_SHAPES, VARIANTS, tiny_denoiser

HALVES = ("fp16", "bf16")
REHEARSED = ("cogvideox", "animatediff")
COGVIDEO = "cogvideo"
REOPENED = 50
WORKERS = 8


def wanted(rehearse: bool) -> list[tuple[str, str, str]]:
    """Variant, dtype and what was pruned (``dense``, or all layers ``local``) of every graph."""
    variants = REHEARSED if rehearse else VARIANTS
    half = ("fp16",) if rehearse else HALVES
    found = [("cogvideox", "fp32", "dense"), ("cogvideox", "fp32", "local")]
    return found + [(variant, dtype, "dense") for variant in variants for dtype in half]


def run(visit: Visit) -> None:
    """Build, then run what was built; the first engine decides whether anything runs here at all."""
    with torch.no_grad():
        make_graphs(visit.graphs, visit.rehearse)
        folder = visit.rows.parent / "engines"
        if not _first(visit, folder):
            return
        _build_all(visit, folder)
        for step in (_families, _graphs, _two_sessions, _stages, _pipeline, _cogvideo, _reopened):
            if visit.left < 8:
                visit.write(step.__name__.strip("_"), error="left out: no time")
                continue
            with visit.attempt(step.__name__.strip("_")):
                step(visit, folder)


def make_graphs(graphs: Path, rehearse: bool) -> None:
    """Export what is missing."""
    for variant, dtype, pruned in wanted(rehearse):
        where = graphs / f"{variant}-{dtype}-{pruned}"
        if (where / "denoiser.onnx").is_file():
            continue
        model, inputs = _subject(variant, 2)
        if pruned == "local":
            model = prune_denoiser(model, _all_local(model))
        with torch.no_grad():
            export_denoiser(model, inputs, where, ExportConfig(dtype=dtype, self_test=False))  # type: ignore[arg-type]
    if not (graphs / COGVIDEO / "decode").is_dir():
        with torch.no_grad():
            export_autoregressive(_tiny_cogvideo(), graphs / COGVIDEO, (0,))


def _backend(visit: Visit) -> BuildConfig:
    return BuildConfig(backend="onnxruntime" if visit.rehearse else "tensorrt-rtx", cache=False)


def _open(visit: Visit, directory: Path) -> Session:
    return open_session(directory, visit.device)


def _subject(variant: str, batch: int, seed: int = 0, device: str = "cpu") -> tuple[Any, dict[str, Any]]:
    model: Any = tiny_denoiser(variant)
    family = family_of(model)
    inputs = family.synthetic_inputs(model, TINY_SHAPES[variant], batch, torch.Generator().manual_seed(seed))
    return model.to(device), _moved(inputs, device)


def _moved(value: Any, device: str) -> Any:
    if torch.is_tensor(value):
        return value.to(device)
    if isinstance(value, dict):
        return {name: _moved(item, device) for name, item in value.items()}
    return tuple(_moved(item, device) for item in value) if isinstance(value, (tuple, list)) else value


def _all_local(model: Any) -> Masks:
    sites = {
        site.name: SiteMask(
            site.layout, 3, site.heads, (0.0,) * site.heads, tuple(range(site.heads)), replacement=Local()
        )
        for site in family_of(model).find_sites(model)
    }
    return Masks(family_of(model).name, 1.0, "layer", "timesteps", "local", (Stage((0, 1), (999.0, 1.0), sites),))


def _first(visit: Visit, folder: Path) -> bool:
    """Build and run one fp32 engine; what refuses says so in its own words."""
    graph, where = visit.graphs / "cogvideox-fp32-dense" / "denoiser.onnx", folder / "cogvideox-fp32-dense"
    ran = False
    with visit.attempt("first engine"):
        record = build_engine(graph, where, _backend(visit))
        visit.write("first build", backend=f"{record.backend} {record.backend_version}", **record.built)
        model, inputs = _subject("cogvideox", 2, 1, visit.device)
        with _open(visit, where) as session:
            output = EngineDenoiser(model, session)(**inputs).sample
            found = json_values(parity(model(**inputs).sample, output))
            visit.write("first engine", cuda_graphs=session.graphs_recorded, **found)
        ran = True
    if not visit.rehearse:
        with visit.attempt("built for 9.0 alone"):
            config = BuildConfig(backend="tensorrt-rtx", cache=False, compute_capabilities=("9.0",))
            build_engine(graph, folder / "named", config)
            visit.write("built for 9.0 alone", built=True)
    return ran


def _build_all(visit: Visit, folder: Path) -> None:
    def build(name: str) -> None:
        with visit.attempt(f"build {name}"):
            build_engine(visit.graphs / name / "denoiser.onnx", folder / name, _backend(visit))

    names = ["-".join(one) for one in wanted(visit.rehearse)]
    started = time.time()
    with ThreadPoolExecutor(1 if visit.rehearse else WORKERS) as pool:
        list(pool.map(build, names))
    visit.write("builds", engines=len(names), seconds=round(time.time() - started, 1))


def _families(visit: Visit, folder: Path) -> None:
    """Both halves of every family: how far engine and PyTorch are from fp32 on the same rounded weights."""
    for variant, dtype, pruned in wanted(visit.rehearse):
        if visit.left < 6 or pruned != "dense":
            continue
        name = f"{variant}-{dtype}-{pruned}"
        if not (folder / name / "engine.json").is_file():
            continue
        with visit.attempt(f"parity {name}"):
            model, _ = _subject(variant, 2, 0, visit.device)
            rounded = copy.deepcopy(model).to(torch_dtype(dtype))
            exact = copy.deepcopy(rounded).float()
            worst: dict[str, float] = {"engine": 0.0, "pytorch": 0.0}
            with _open(visit, folder / name) as session:
                engine = EngineDenoiser(model, session)
                for seed, batch in enumerate((2, 1, 2, 1)):
                    inputs = _subject(variant, batch, seed + 1, visit.device)[1]
                    expected = sample_of(exact(**inputs, return_dict=False))
                    worst["engine"] = max(
                        worst["engine"], parity(expected, sample_of(engine(**inputs, return_dict=False)).float()).rel_l2
                    )
                    half = _rounded(inputs, torch_dtype(dtype))
                    with contextlib.suppress(RuntimeError):  # some models mix dtypes only under autocast
                        output = sample_of(rounded(**half, return_dict=False)).float()
                        worst["pytorch"] = max(worst["pytorch"], parity(expected, output).rel_l2)
                recorded = session.graphs_recorded
            visit.write(f"parity {name}", cuda_graphs=recorded, **worst)


def _rounded(inputs: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    def cast(value: Any) -> Any:
        if torch.is_tensor(value) and value.is_floating_point():
            return value.to(dtype)
        return tuple(cast(item) for item in value) if isinstance(value, (tuple, list)) else value

    return {name: value if name == "timestep" else cast(value) for name, value in inputs.items()}


@contextlib.contextmanager
def _plain(visit: Visit, folder: Path, pruned: str = "dense") -> Iterator[tuple[Any, Session]]:
    """The fp32 CogVideoX, what it should compute, and its session."""
    model, _ = _subject("cogvideox", 1, 0, visit.device)
    if pruned == "local":
        prune_denoiser(model, _all_local(model))
    with _open(visit, folder / f"cogvideox-fp32-{pruned}") as session:
        yield model, session


def _graphs(visit: Visit, folder: Path) -> None:
    """Batches of two sizes by turns, new numbers each time: replays must follow; then a call's time."""
    with _plain(visit, folder) as (model, session):
        engine = EngineDenoiser(model, session)
        worst = 0.0
        for seed in range(12):
            inputs = _subject("cogvideox", 1 + seed % 2, seed, visit.device)[1]
            worst = max(worst, parity(model(**inputs).sample, engine(**inputs).sample).rel_l2)
        first = engine(**inputs).sample
        kept = first.clone()
        engine(**_subject("cogvideox", 2, 77, visit.device)[1])
        unchanged = bool(torch.equal(first, kept))
        tensors = flatten_arguments(inputs).tensors
        calls = {
            "engine": lambda: session.run(tensors),
            "pytorch": lambda: model(**inputs),
        }
        times = {name: statistics.median(once(call, visit.device) for _ in range(50)) for name, call in calls.items()}
        visit.write(
            "graphs",
            worst_rel_l2=worst,
            cuda_graphs=session.graphs_recorded,
            results_kept=unchanged,
            seconds=times,
        )


def _two_sessions(visit: Visit, folder: Path) -> None:
    """Two engines in two threads at once."""
    worst, failures = {}, []

    def use(pruned: str) -> None:
        try:
            with torch.no_grad(), _plain(visit, folder, pruned) as (model, session):
                engine, error = EngineDenoiser(model, session), 0.0
                for seed in range(20):
                    inputs = _subject("cogvideox", 1 + seed % 2, seed, visit.device)[1]
                    error = max(error, parity(model(**inputs).sample, engine(**inputs).sample).rel_l2)
                worst[pruned] = error
        except Exception as error:  # a thread's exception would be lost
            failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=use, args=(pruned,)) for pruned in ("dense", "local")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    visit.write("two sessions", worst_rel_l2=worst, failures=failures)


def _stages(visit: Visit, folder: Path) -> None:
    """High timesteps on the dense engine, low ones on the pruned."""
    with _plain(visit, folder) as (dense, early), _plain(visit, folder, "local") as (pruned, late):
        engine = EngineDenoiser(dense, [(500.0, early), (0.0, late)])
        worst = 0.0
        for seed, timestep in enumerate((999, 500, 499, 1, 700)):
            inputs = _subject("cogvideox", 2, seed, visit.device)[1]
            inputs["timestep"] = torch.full_like(inputs["timestep"], timestep)
            model = dense if timestep >= 500 else pruned
            worst = max(worst, parity(model(**inputs).sample, engine(**inputs).sample).rel_l2)
        visit.write("stages", worst_rel_l2=worst)


def _pipeline(visit: Visit, folder: Path) -> None:
    """An unmodified pipeline on the device, its transformer an engine."""
    from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXPipeline

    with _plain(visit, folder) as (model, session):
        torch.manual_seed(0)
        vae = AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * 3,
            up_block_types=("CogVideoXUpBlock3D",) * 3,
            block_out_channels=(8, 8, 8),
            latent_channels=model.config.in_channels,
            layers_per_block=1,
            norm_num_groups=2,
            temporal_compression_ratio=1,
        ).eval()
        text = torch.randn(2, 1, model.config.max_text_seq_length, model.config.text_embed_dim, device=visit.device)
        shape = TINY_SHAPES["cogvideox"]
        videos = []
        for denoiser in (model, EngineDenoiser(model, session)):
            pipeline = CogVideoXPipeline(None, None, vae, denoiser, CogVideoXDDIMScheduler()).to(visit.device)
            pipeline.set_progress_bar_config(disable=True)
            made = pipeline(
                prompt_embeds=text[0],
                negative_prompt_embeds=text[1],
                num_frames=shape.frames,
                height=4 * shape.height,
                width=4 * shape.width,
                num_inference_steps=4,
                generator=torch.Generator("cpu").manual_seed(3),
                output_type="pt",
            )
            videos.append(made.frames[0])
        visit.write("pipeline", device=str(videos[1].device), **json_values(parity(*videos)))


def _tiny_cogvideo() -> Any:
    config = CogVideoConfig(
        num_layers=2,
        hidden_size=32,
        num_attention_heads=4,
        vocab_size=40,
        text_len=5,
        frame_len=16,
        frame_num=3,
        max_sequence_length=528,
        additional_seqlen=64,
    )
    model = CogVideo(config)
    randomize_weights(model, 0)
    return model.eval().requires_grad_(False)


def _cogvideo(visit: Visit, folder: Path) -> None:
    """CogVideo token by token, its caches bound as input and output of a step at once."""
    model = _tiny_cogvideo()
    build_autoregressive(visit.graphs / COGVIDEO, folder / COGVIDEO, model.shape, _backend(visit))
    seen: dict[str, list[torch.Tensor]] = {"pytorch": [], "engine": []}

    def recording(name: str) -> Any:
        def sampler(logits: torch.Tensor, generator: Any) -> torch.Tensor:
            seen[name].append(logits.float().cpu())
            return GreedySampler(32)(logits)

        return sampler

    given = torch.arange(16).view(1, 1, 16) % 32
    arguments: Any = ([32, 33, 34, 35], given, (0, 1, 2), 39)
    settings: dict[str, Any] = {"guide": [36, 37], "guidance_scale": 3.0, "log_text": 1.4}
    expected = generate_tokens(model, *arguments, recording("pytorch"), **settings)
    with EngineCogVideo.open(folder / COGVIDEO, model.shape, device=visit.device) as engine:
        started = time.perf_counter()
        found = generate_tokens(engine, *arguments, recording("engine"), **settings)
        seconds = time.perf_counter() - started
    error = parity(torch.stack(seen["pytorch"]), torch.stack(seen["engine"])).rel_l2
    same = bool(torch.equal(found.cpu(), expected))
    visit.write("cogvideo", same_tokens=same, logits_rel_l2=error, seconds=round(seconds, 2))


def _reopened(visit: Visit, folder: Path) -> None:
    """Free memory before and after opening, running and closing one engine again and again."""
    model, inputs = _subject("cogvideox", 2, 0, visit.device)
    free: list[float] = []
    for turn in range(4 if visit.rehearse else REOPENED):
        with _open(visit, folder / "cogvideox-fp32-dense") as session:
            EngineDenoiser(model, session)(**inputs)
        if turn % 10 == 0 or turn == REOPENED - 1:
            gc.collect()
            free.append(_free_mb(visit))
        if visit.left < 3:
            break
    visit.write("reopened", times=turn + 1, free_mb=free)


def _free_mb(visit: Visit) -> float:
    if visit.device != "cuda":
        import psutil

        return round(psutil.virtual_memory().available / 2**20)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return round(torch.cuda.mem_get_info()[0] / 2**20, 1)
