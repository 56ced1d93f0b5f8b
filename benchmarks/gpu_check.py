"""Dense against pruned TensorRT-RTX engines on an NVIDIA GPU, beside PyTorch eager; skips with a reason elsewhere."""

from __future__ import annotations

import argparse
import copy
import tempfile
from pathlib import Path

from _measure import alternate, environment, write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", default="benchmarks/results/gpu.json")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("gpu_check: skipped, PyTorch sees no NVIDIA GPU on this machine")
        return

    from diffusers import CogVideoXTransformer3DModel

    from calibration import PruneConfig, calibrate, denoise_synthetic, prune_denoiser, select_masks
    from engines import BuildConfig, build_engine, open_session
    from engines.check import parity
    from exporter import ExportConfig, export_denoiser
    from f3prune.families import family_of
    from f3prune.random_weights import randomize_weights

    denoiser = CogVideoXTransformer3DModel(
        num_attention_heads=30, attention_head_dim=64, num_layers=6, sample_width=90, sample_height=60
    )
    randomize_weights(denoiser, 0)
    denoiser.eval().requires_grad_(False).half().cuda()
    family = family_of(denoiser)
    shape = family.default_shape(denoiser.config)
    calibration = calibrate(denoiser, lambda: denoise_synthetic(denoiser, shape, 1), rows=16)
    inputs = family.synthetic_inputs(denoiser, shape, 2, torch.Generator().manual_seed(0))
    tensors = {name: value for name, value in inputs.items() if torch.is_tensor(value)}
    runs, sessions, agreement = {}, [], {}
    with tempfile.TemporaryDirectory() as folder:
        for alpha in (0.0, 0.5, 1.0):
            masks = select_masks(calibration, PruneConfig(alpha))
            pruned = prune_denoiser(copy.deepcopy(denoiser), masks)
            where = Path(folder) / f"{alpha:g}"
            result = export_denoiser(pruned, inputs, where / "onnx", ExportConfig(dtype="fp16", self_test=False))
            config = BuildConfig(backend="tensorrt-rtx", cache=False, batch=(2, 2, 2))
            build_engine(result.path, where / "engine", config, masks_digest=masks.digest)
            session = open_session(where / "engine")
            sessions.append(session)
            with torch.no_grad():
                expected = pruned(**inputs, return_dict=False)[0]
            agreement[f"alpha={alpha:g}"] = parity(session.run(tensors)["sample"], expected).to_dict()

            def engine(session=session):
                session.run(tensors)
                torch.cuda.synchronize()

            def eager(pruned=pruned):
                with torch.no_grad():
                    pruned(**inputs, return_dict=False)
                torch.cuda.synchronize()

            runs[f"tensorrt-rtx alpha={alpha:g}"] = engine
            runs[f"pytorch alpha={alpha:g}"] = eager
        times = alternate(runs, options.rounds, warm_up=3)
        for session in sessions:
            session.close()
    result = {
        "environment": {**environment(), "gpu": torch.cuda.get_device_name()},
        "shape": "CogVideoX-2b width, 6 layers, 13x60x90 latents, fp16, batch 2",
        "times": times,
        "parity": agreement,
    }
    write(options.json, result)


if __name__ == "__main__":
    main()
