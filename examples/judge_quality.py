"""Generate the same prompts from the same seeds, dense and pruned, and compare the videos metric by metric."""

import argparse

import diffusers
import numpy as np
import torch

import f3prune
from f3prune.quality.compare import compare, measure
from f3prune.quality.metrics import INFO, build_metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=f3prune.zoo.path("digits"), help="a diffusers pipeline directory or hub id")
    parser.add_argument("--mode", default="pooled:2:1", help="what takes a pruned layer's place")
    parser.add_argument("--prompts", nargs="+", default=["a 3 moving left", "a 7 moving up", "a 0 moving right"])
    parser.add_argument("--metrics", nargs="+", default=["psnr", "ssim", "flicker", "dynamic"], choices=sorted(INFO))
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()

    pipe = diffusers.DiffusionPipeline.from_pretrained(options.model)
    pipe.set_progress_bar_config(disable=True)

    def generate(number: int) -> np.ndarray:
        settings = {"max_sequence_length": 12, "num_inference_steps": options.steps, "output_type": "np"}
        generator = torch.Generator().manual_seed(number)
        return pipe(options.prompts[number], generator=generator, **settings).frames[0]

    numbers = range(len(options.prompts))
    before = [generate(number) for number in numbers]
    config = f3prune.PruneConfig(alpha=0.5, mode=options.mode)
    measured = f3prune.calibrate(pipe.transformer, lambda: generate(0))
    calls = f3prune.record_calls(pipe.transformer, lambda: generate(0))
    scores = f3prune.rank_units(pipe.transformer, measured, config, calls)
    f3prune.prune_denoiser(pipe.transformer, f3prune.select_masks(measured, config, scores))
    after = [generate(number) for number in numbers]

    alone = [name for name in options.metrics if INFO[name].kind != "paired"]
    dense = measure(before, options.prompts, build_metrics(alone))
    pruned = measure(after, options.prompts, build_metrics(options.metrics), reference=before)
    found = compare(dense, pruned)
    for name, value in found["pruned"].items():
        low, high = value["interval"]
        print(f"{name:10} pruned {value['value']:8.4f}, 95 % interval [{low:.4f}, {high:.4f}]")
    for name, value in found["difference"].items():
        print(f"{name:10} pruned minus dense {value['value']:8.4f}: {value['verdict']}")


if __name__ == "__main__":
    main()
