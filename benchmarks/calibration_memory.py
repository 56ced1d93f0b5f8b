"""Memory of exact calibration at CogVideoX-2b's full token count, on a slice of two layers in bfloat16.

The two-layer slice has the full width (30 heads of 64), the full 226 + 13·30·45 = 17 776 tokens and real projections;
memory of calibration does not depend on the number of layers but for the weights themselves.
"""

from __future__ import annotations

import argparse
import json

from _measure import environment, peak_of, write

HEADS, HEAD_DIM, FULL_LAYERS = 30, 64, 30


def measure(rows: int | None, layers: int) -> None:
    """Calibrate the slice once and print what it took as one JSON line."""
    import time

    import torch
    from diffusers import CogVideoXTransformer3DModel

    from f3prune.calibration import calibrate, denoise_synthetic
    from f3prune.families import family_of

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    denoiser = CogVideoXTransformer3DModel(
        num_attention_heads=HEADS, attention_head_dim=HEAD_DIM, num_layers=layers, sample_width=90, sample_height=60
    )
    torch.set_default_dtype(torch.float32)
    denoiser.eval().requires_grad_(False)
    shape = family_of(denoiser).default_shape(denoiser.config)
    start = time.perf_counter()
    calibration = calibrate(denoiser, lambda: denoise_synthetic(denoiser, shape, 1), rows=rows)
    seconds = time.perf_counter() - start
    block = denoiser.transformer_blocks[0]
    mass = next(iter(calibration.mass.values()))
    print(
        json.dumps(
            {
                "calibration_seconds": round(seconds, 1),
                "weights_gb": sum(p.numel() * 2 for p in denoiser.parameters()) / 1e9,
                "weights_full_model_gb": (
                    sum(p.numel() * 2 for p in denoiser.parameters())
                    + (FULL_LAYERS - layers) * sum(p.numel() * 2 for p in block.parameters())
                )
                / 1e9,
                "worst_row_sum_error": float((mass.sum(-1) - 1).abs().max()),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rows", nargs="+", default=["all", "16"], help="query tokens per frame to measure")
    parser.add_argument("--measure", metavar="ROWS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        measure(None if options.measure == "all" else int(options.measure), options.layers)
        return
    tokens = 226 + 13 * 30 * 45
    result = {
        "environment": environment(),
        "tokens": tokens,
        "heads": HEADS,
        "layers": options.layers,
        "full_score_matrix_gb": HEADS * tokens**2 * 4 / 1e9,
        "rows": {
            rows: peak_of([__file__, "--layers", str(options.layers), "--measure", rows]) for rows in options.rows
        },
    }
    write(options.json, result)


if __name__ == "__main__":
    main()
