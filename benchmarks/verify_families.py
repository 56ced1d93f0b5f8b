"""Take every family through bake, export, ONNX Runtime and TensorRT-RTX on tiny random weights, and record the result.

Writes ``f3prune/families/verified.json``, which ``f3prune families`` shows: for each family the worst relative L2 error
over its variants, units and outputs, and what was built. ``--only`` renews the entries of some families, with the
packages that the others were verified with.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from collections import defaultdict
from pathlib import Path

import torch
from _measure import environment
from rich.progress import track

from f3prune.calibration import (
    PruneConfig,
    calibrate,
    denoise_synthetic,
    masked_reference,
    prune_denoiser,
    select_masks,
)
from f3prune.core.calls import outputs_of
from f3prune.core.weights import randomize_weights
from f3prune.engines import BuildConfig, build_engine, open_session
from f3prune.engines.cogvideo import EngineCogVideo, build_autoregressive
from f3prune.exporter import ExportConfig, export_autoregressive, export_denoiser, flatten_arguments
from f3prune.families import family_of, registry
from f3prune.models import CogVideo, CogVideoConfig
from f3prune.testing import TINY_SHAPES, VARIANTS, family_name, tiny_denoiser

UNITS = [(1.0, "layer", "local"), (0.5, "head", "drop"), (0.5, "frame-pair", "local")]
COGVIDEO = {"cogvideo-stage1": (1, -1), "cogvideo-stage2": (2, 2)}
"""Stage and window size."""
TARGET = Path(__file__).parents[1] / "f3prune" / "families" / "verified.json"


def relative(output: torch.Tensor, expected: torch.Tensor) -> float:
    return float((output - expected).norm() / expected.norm())


def verify(variant: str) -> dict[str, float | int]:
    """Worst errors of one variant over all units, and the number of TensorRT-RTX engines built."""
    denoiser = tiny_denoiser(variant)
    family, shape = family_of(denoiser), TINY_SHAPES[variant]
    inputs = family.synthetic_inputs(denoiser, shape, 2, torch.Generator().manual_seed(0))
    calibration = calibrate(denoiser, lambda: denoise_synthetic(denoiser, shape, 3, batch=2))
    baked_error = engine_error = 0.0
    built = 0
    for alpha, granularity, mode in UNITS:
        masks = select_masks(calibration, PruneConfig(alpha, granularity, mode=mode, score="aas"))
        pruned = prune_denoiser(copy.deepcopy(denoiser), masks)
        with torch.no_grad(), masked_reference(denoiser, masks):
            reference = outputs_of(denoiser(**inputs, return_dict=False), family.outputs).values()
        with torch.no_grad():
            expected = outputs_of(pruned(**inputs, return_dict=False), family.outputs).values()
        baked_error = max(baked_error, *map(relative, expected, reference))
        with tempfile.TemporaryDirectory() as folder:
            graph = export_denoiser(pruned, inputs, Path(folder) / "onnx", ExportConfig(self_test=False)).path
            build_engine(graph, Path(folder) / "ort", BuildConfig(cache=False), masks_digest=masks.digest)
            with open_session(Path(folder) / "ort") as session:
                found = session.run(flatten_arguments(inputs).tensors).values()
                engine_error = max(engine_error, *map(relative, found, expected))
            if granularity != "frame-pair":
                config = BuildConfig(backend="tensorrt-rtx", cache=False, compute_capabilities=("8.9",))
                build_engine(graph, Path(folder) / "rtx", config, masks_digest=masks.digest)
                built += 1
    return {"baked": baked_error, "engine": engine_error, "built": built}


def verify_cogvideo(stage: int, window: int) -> dict[str, float | int]:
    """The same for CogVideo, whose engines replay a sequence token by token."""
    config = CogVideoConfig(
        num_layers=2,
        hidden_size=32,
        num_attention_heads=4,
        vocab_size=40,
        text_len=5,
        frame_len=16,
        frame_num=5 if stage == 2 else 3,
        stage=stage,
        window_size=window,
        max_sequence_length=528,
        additional_seqlen=64,
    )
    denoiser = CogVideo(config)
    randomize_weights(denoiser, 0)
    denoiser.eval().requires_grad_(False)
    family = family_of(denoiser)
    inputs = family.synthetic_inputs(
        denoiser, family.default_shape(denoiser.config), 2, torch.Generator().manual_seed(0)
    )
    # A replay can be fed only what generation feeds: one token starts every frame.
    inputs["tokens"][:, config.text_len :: config.frame_len] = config.vocab_size - 1
    calibration = calibrate(denoiser, lambda: denoiser(**inputs))
    baked_error = engine_error = 0.0
    built = 0
    for alpha, granularity, mode in ((1.0, "layer", "local"), (0.5, "layer", "drop"), (0.5, "head", "local")):
        masks = select_masks(calibration, PruneConfig(alpha, granularity, mode=mode, score="aas"))
        pruned = prune_denoiser(copy.deepcopy(denoiser), masks)
        with torch.no_grad(), masked_reference(denoiser, masks):
            reference = denoiser(**inputs)
        with torch.no_grad():
            expected = pruned(**inputs)
        baked_error = max(baked_error, relative(expected, reference))
        with tempfile.TemporaryDirectory() as folder:
            onnx, engine = Path(folder) / "onnx", Path(folder) / "engine"
            export_autoregressive(pruned, onnx, (), ExportConfig(self_test=False))
            build_autoregressive(onnx, engine, config, BuildConfig(cache=False), masks.digest)
            if stage == 1:
                # In stage 2 the original's cached inference differs from training, and so from a whole sequence.
                with EngineCogVideo.open(engine, config, masks.digest) as session:
                    (output,) = session(**inputs)
                engine_error = max(engine_error, relative(output, expected[:, config.text_len :]))
            rtx = BuildConfig(backend="tensorrt-rtx", cache=False, compute_capabilities=("8.9",))
            built += len(build_autoregressive(onnx, Path(folder) / "rtx", config, rtx, masks.digest))
    return {"baked": baked_error, "engine": engine_error, "built": built}


def _family(variant: str) -> str:
    return "cogvideo" if variant in COGVIDEO else family_name(variant)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    everything = [*VARIANTS, *COGVIDEO]
    parser.add_argument("--only", nargs="+", default=everything, choices=everything)
    options = parser.parse_args()
    made_in, before = environment(), {}
    if len(options.only) < len(everything):
        recorded = json.loads(TARGET.read_text("utf-8"))
        if not recorded["environment"]["versions"].items() <= made_in["versions"].items():
            parser.error("the other families were verified with other packages: leave --only out")
        wanted = {_family(name) for name in options.only}
        if missing := [name for name in everything if _family(name) in wanted and name not in options.only]:
            parser.error(f"--only takes whole families: add {' '.join(missing)}")
        made_in, before = recorded["environment"], recorded["families"]
    results: dict[str, list[dict[str, float | int]]] = defaultdict(list)
    for variant in track(options.only, description="verifying families"):
        if variant in COGVIDEO:
            results["cogvideo"].append(verify_cogvideo(*COGVIDEO[variant]))
            continue
        results[family_of(tiny_denoiser(variant)).name].append(verify(variant))
    families = {
        name: {
            "baked = reference": f"{max(r['baked'] for r in rows):.0e}",
            "ONNX Runtime = PyTorch": f"{max(r['engine'] for r in rows):.0e}",
            "TensorRT-RTX": f"{sum(r['built'] for r in rows)} built",
            **({"variants": len(rows)} if len(rows) > 1 else {}),
        }
        for name, rows in results.items()
    }
    families = before | families
    families = {name: families[name] for name in registry() if name in families}
    TARGET.write_text(json.dumps({"environment": made_in, "families": families}, indent=1) + "\n", "utf-8")
    print(f"wrote {TARGET}")


if __name__ == "__main__":
    main()
