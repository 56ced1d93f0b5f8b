"""One denoising step of a CogVideoX-shaped denoiser on ONNX Runtime's CPU provider: dense against pruned engines.

6 layers of 6 heads of 64, 13 frames of 256 tokens, whole layers pruned by AAS. All engines are built by the same code
as ``f3prune build`` and run in turn. Beside each ratio stands what the matrix products alone would allow.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from pathlib import Path

from _measure import alternate, environment, write

LAYERS, HEADS, HEAD_DIM, FRAMES, SIDE = 6, 6, 64, 13, 16


def products(alpha_layers: int, text: int) -> float:
    """Multiply-adds of all matrix products in the blocks when ``alpha_layers`` of them are frame-local."""
    width, per_frame = HEADS * HEAD_DIM, SIDE * SIDE
    video = FRAMES * per_frame
    linear = 12 * width**2 * (video + text)
    dense = 2 * (video + text) ** 2 * width
    local = 2 * width * (video * (per_frame + text) + text**2)
    return LAYERS * linear + (LAYERS - alpha_layers) * dense + alpha_layers * local


def measure(text: int, alphas: list[float], mode: str, rounds: int) -> dict[str, object]:
    import torch
    from diffusers import CogVideoXTransformer3DModel

    from calibration import PruneConfig, calibrate, denoise_synthetic, prune_denoiser, select_masks
    from engines import BuildConfig, build_engine, open_session
    from exporter import ExportConfig, export_denoiser
    from f3prune.families import family_of
    from f3prune.random_weights import randomize_weights

    denoiser = CogVideoXTransformer3DModel(
        num_attention_heads=HEADS,
        attention_head_dim=HEAD_DIM,
        num_layers=LAYERS,
        time_embed_dim=256,
        text_embed_dim=256,
        max_text_seq_length=text,
        sample_width=2 * SIDE,
        sample_height=2 * SIDE,
        sample_frames=4 * (FRAMES - 1) + 1,
    )
    randomize_weights(denoiser, 0)
    denoiser.eval().requires_grad_(False)
    family = family_of(denoiser)
    shape = family.default_shape(denoiser.config)
    inputs = family.synthetic_inputs(denoiser, shape, 1, torch.Generator().manual_seed(0))
    calibration = calibrate(denoiser, lambda: denoise_synthetic(denoiser, shape, 1), rows=16)
    tensors = {name: value for name, value in inputs.items() if torch.is_tensor(value)}
    with tempfile.TemporaryDirectory() as folder:
        sessions, facts = {}, {}
        for alpha in alphas:
            masks = select_masks(calibration, PruneConfig(alpha, mode=mode))
            pruned = prune_denoiser(copy.deepcopy(denoiser), masks)
            name = f"alpha={alpha:g}"
            where = Path(folder) / name
            result = export_denoiser(pruned, inputs, where / "onnx", ExportConfig(), test_inputs=[inputs])
            build_engine(result.path, where / "engine", BuildConfig(cache=False), masks_digest=masks.digest)
            sessions[name] = open_session(where / "engine")
            facts[name] = {
                "self_test": result.self_test.to_dict() if result.self_test else None,
                "layers_pruned": sum(bool(m.pruned_heads) for m in masks.stages[0].sites.values()),
            }
        times = alternate({n: lambda s=s: s.run(tensors) for n, s in sessions.items()}, rounds)
        for session in sessions.values():
            session.close()
    base = times[f"alpha={alphas[0]:g}"]["median"]
    for name, row in times.items():
        row["speedup"] = base / row["median"]
        row["products_allow"] = products(0, text) / products(facts[name]["layers_pruned"], text)
    return {"text_tokens": text, "mode": mode, "times": times, "facts": facts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--text", type=int, nargs="+", default=[32, 226])
    options = parser.parse_args()
    result = {
        "environment": environment(),
        "shape": f"{LAYERS} layers, {HEADS} heads x {HEAD_DIM}, {FRAMES} frames x {SIDE * SIDE} tokens, fp32, batch 1",
        "runs": [measure(text, [0.0, 0.5, 1.0], "local", options.rounds) for text in options.text],
    }
    write(options.json, result)


if __name__ == "__main__":
    main()
