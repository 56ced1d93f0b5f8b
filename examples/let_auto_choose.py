"""Let mode auto choose a replacement for every layer, and print what it chose from."""

import argparse
import json
from pathlib import Path

import f3prune
from f3prune.core.run_directory import RunDirectory
from f3prune.pipelines.pipeline_runs import GenerationSettings
from f3prune.steps.calibrate import CalibrateOptions, calibrate
from f3prune.steps.prune import prune


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="zoo:digits", help="a diffusers pipeline directory, hub id or zoo:NAME")
    parser.add_argument("--alpha", type=float, default=0.4, help="share of the sites' multiplications to save")
    parser.add_argument("--candidates", nargs="+", default=["local", "window:1", "pooled:2:1"])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("-o", "--output", type=Path, default=Path("auto"))
    options = parser.parse_args()

    run = RunDirectory.create(options.output)
    config = f3prune.PruneConfig(options.alpha, mode="auto", candidates=tuple(options.candidates))
    with run.lock():
        settings = GenerationSettings(steps=options.steps)
        calibrate(run, CalibrateOptions(options.model, num_prompts=1, settings=settings))
        prune(run, config)

    (found,) = (run.path / "scores").glob("auto-*/choices.json")
    choices = json.loads(found.read_text(encoding="utf-8"))
    for offer in choices["offers"][0]:
        mark = "  chosen" if offer["chosen"] else ""
        print(f"{offer['site']:30} {offer['mode']:12} error {offer['error']:8.5f}, saves {offer['saved']:6.1%}{mark}")
    print(f"{choices['saved'][0]:.0%} of the sites' multiplications saved, error {min(choices['errors'][0]):.5f}")


if __name__ == "__main__":
    main()
