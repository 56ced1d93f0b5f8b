"""Export a pipeline's denoiser, build an engine, and generate with the unchanged pipeline on it."""

import argparse
from pathlib import Path

import diffusers
import torch

import f3prune


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=f3prune.zoo.path("digits"), help="a diffusers pipeline directory or hub id")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("-o", "--output", type=Path, default=Path("engine"))
    options = parser.parse_args()

    pipe = diffusers.DiffusionPipeline.from_pretrained(options.model)
    pipe.set_progress_bar_config(disable=True)

    def generate() -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        settings = {"max_sequence_length": 12, "num_inference_steps": options.steps, "output_type": "pt"}
        return pipe("a 7 moving left", generator=generator, **settings).frames[0]

    (_, inputs), *_ = f3prune.record_calls(pipe.transformer, generate, count=1)
    inputs.pop("return_dict")
    before = generate()
    graph = f3prune.export_denoiser(pipe.transformer, inputs, options.output / "onnx")
    f3prune.build_engine(graph.path, options.output / "engine")
    with f3prune.open_session(options.output / "engine") as session:
        pipe.transformer = f3prune.EngineDenoiser(pipe.transformer, session)
        after = generate()
    print(f"largest difference of a pixel: {float((after - before).abs().max()):.1e}")


if __name__ == "__main__":
    main()
