"""Calibrate a diffusers pipeline, prune half of its attention layers, and generate with what is left."""

import argparse
from pathlib import Path

import diffusers
from diffusers.utils import export_to_video

import f3prune


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=f3prune.zoo.path("digits"), help="a diffusers pipeline directory or hub id")
    parser.add_argument("--prompt", default="a 7 moving left")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--mode", default="pooled:2:1", help="what takes a pruned layer's place")
    parser.add_argument("-o", "--output", type=Path, default=Path("pruned"))
    options = parser.parse_args()

    pipe = diffusers.DiffusionPipeline.from_pretrained(options.model)
    pipe.set_progress_bar_config(disable=True)

    def generate() -> list:
        return pipe(options.prompt, max_sequence_length=12, num_inference_steps=options.steps).frames[0]

    config = f3prune.PruneConfig(alpha=0.5, mode=options.mode)
    measured = f3prune.calibrate(pipe.transformer, generate)
    calls = f3prune.record_calls(pipe.transformer, generate)
    scores = f3prune.rank_units(pipe.transformer, measured, config, calls)
    masks = f3prune.select_masks(measured, config, scores)
    f3prune.prune_denoiser(pipe.transformer, masks)
    f3prune.save_pruned(pipe.transformer, options.output)
    export_to_video(generate(), str(options.output / "video.mp4"), fps=8)
    gone = [name for name, mask in masks.stages[0].sites.items() if mask.pruned_heads]
    print(f"{options.output}: {len(gone)} of {len(masks.stages[0].sites)} layers are {config.mode}: {', '.join(gone)}")


if __name__ == "__main__":
    main()
