"""Dense and pruned TensorRT-RTX engines of CogVideoX-2b's width, fp16, in turn beside PyTorch on the same card."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from _timing import in_turn
from _visit import Visit

from f3prune.calibration import PruneConfig, calibrate, denoise_synthetic, prune_denoiser, select_masks
from f3prune.core.calls import sample_of
from f3prune.core.json_values import json_values
from f3prune.core.weights import randomize_weights
from f3prune.engines import BuildConfig, build_engine, open_session, parity
from f3prune.exporter import ExportConfig, export_denoiser, flatten_arguments
from f3prune.families import family_of
from f3prune.testing import TINY_SHAPES, tiny_denoiser

LAYERS = 6
ROUNDS = 30
ALPHAS = (0.0, 0.5, 1.0)


def run(visit: Visit) -> None:
    """Export, build and time each ratio; what the backend refuses is the result."""
    if any(row["name"] == "first engine" and "error" in row for row in visit.earlier("engines")):
        visit.write("engines", error="left out: engines do not run on this card")
        return
    model, shape = _denoiser(visit)
    family = family_of(model)
    calibration = calibrate(model, lambda: denoise_synthetic(model, shape, 1), rows=16)
    inputs = family.synthetic_inputs(model, shape, 2, torch.Generator().manual_seed(0))
    tensors = flatten_arguments(inputs).tensors
    backend = "onnxruntime" if visit.rehearse else "tensorrt-rtx"
    dtype = "fp32" if visit.rehearse else "fp16"
    folder, runs = visit.rows.parent / "engine_speed", {}
    with ExitStack() as stack, torch.no_grad():
        for alpha in ALPHAS:
            with visit.attempt(f"α={alpha:g}"):
                masks = select_masks(calibration, PruneConfig(alpha, mode="local", score="aas"))
                pruned = prune_denoiser(copy.deepcopy(model), masks)
                where = folder / f"{alpha:g}"
                graph = export_denoiser(pruned, inputs, where / "onnx", ExportConfig(dtype=dtype, self_test=False))  # type: ignore[arg-type]
                config = BuildConfig(backend=backend, cache=False, batch=(2, 2, 2))  # type: ignore[arg-type]
                build_engine(graph.path, where / "engine", config, masks_digest=masks.digest)
                session = stack.enter_context(open_session(where / "engine", visit.device))
                (output,) = session.run(tensors).values()
                found = parity(sample_of(pruned(**inputs, return_dict=False)).float(), output.float())
                visit.write(f"parity α={alpha:g}", **json_values(found))
                runs[f"engine α={alpha:g}"] = partial(session.run, tensors)
                runs[f"pytorch α={alpha:g}"] = _eager(pruned, inputs)
        for call in runs.values():
            call()
        times = in_turn(runs, visit.device, 2 if visit.rehearse else ROUNDS, lambda: visit.left)
    for title, seconds in times.items():
        dense = times[f"{title.split()[0]} α=0"]["median"]
        visit.write(title, seconds=seconds, speedup=round(dense / seconds["median"], 3))


def _denoiser(visit: Visit) -> tuple[Any, Any]:
    if visit.rehearse:
        return tiny_denoiser("cogvideox"), TINY_SHAPES["cogvideox"]
    from diffusers import CogVideoXTransformer3DModel

    model = CogVideoXTransformer3DModel(
        num_attention_heads=30, attention_head_dim=64, num_layers=LAYERS, sample_width=90, sample_height=60
    )
    randomize_weights(model, 0)
    model.eval().requires_grad_(False).half().to(visit.device)
    return model, family_of(model).default_shape(model.config)


def _eager(model: Any, inputs: dict[str, Any]) -> Callable[[], object]:
    return lambda: model(**inputs, return_dict=False)
