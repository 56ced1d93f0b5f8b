"""Export a pruned denoiser to ONNX, and compare ONNX Runtime with PyTorch on other inputs than the export saw."""

import argparse
from pathlib import Path

import torch

import f3prune
from f3prune.calibration import denoise_synthetic
from f3prune.engines import parity
from f3prune.exporter import flatten_arguments
from f3prune.families import family_of
from f3prune.testing import TINY_SHAPES, tiny_denoiser


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="latte", choices=sorted(TINY_SHAPES), help="a tiny denoiser")
    parser.add_argument("--mode", default="static", help="what takes a pruned layer's place")
    parser.add_argument("-o", "--output", type=Path, default=Path("export"))
    options = parser.parse_args()

    denoiser, shape = tiny_denoiser(options.model), TINY_SHAPES[options.model]
    measured = f3prune.calibrate(denoiser, lambda: denoise_synthetic(denoiser, shape, steps=2))
    config = f3prune.PruneConfig(alpha=0.5, mode=options.mode, score="aas")
    masks = f3prune.select_masks(measured, config)
    f3prune.prune_denoiser(denoiser, masks)

    def inputs(batch: int, seed: int) -> dict:
        return family_of(denoiser).synthetic_inputs(denoiser, shape, batch, torch.Generator().manual_seed(seed))

    graph = f3prune.export_denoiser(denoiser, inputs(2, 0), options.output / "onnx")
    f3prune.build_engine(graph.path, options.output / "engine", masks_digest=masks.digest)
    with f3prune.open_session(options.output / "engine") as session, torch.no_grad():
        for batch in (1, 2):
            fresh = inputs(batch, seed=batch)
            expected = denoiser(**fresh, return_dict=False)[0]
            (output,) = session.run(flatten_arguments(fresh).tensors).values()
            print(f"batch {batch}: relative L2 {parity(expected, output).rel_l2:.1e}")


if __name__ == "__main__":
    main()
