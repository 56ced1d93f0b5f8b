"""What the denoiser's output loses with each mode at each layer alone: which replacement suits this model?"""

import argparse

import f3prune
from f3prune.calibration import denoise_synthetic, leave_one_out
from f3prune.testing import TINY_SHAPES, tiny_denoiser


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="cogvideox", choices=sorted(TINY_SHAPES), help="a tiny denoiser")
    parser.add_argument("--modes", nargs="+", default=["local", "drop", "window:1", "pooled:2:0"])
    options = parser.parse_args()

    denoiser, shape = tiny_denoiser(options.model), TINY_SHAPES[options.model]

    def denoise() -> None:
        denoise_synthetic(denoiser, shape, steps=4)

    measured = f3prune.calibrate(denoiser, denoise)
    calls = f3prune.record_calls(denoiser, denoise, count=2)
    tables = {mode: leave_one_out(denoiser, measured, calls, "layer", mode).total() for mode in options.modes}
    print(f"{'layer':40}", *(f"{mode:>12}" for mode in options.modes))
    for name in measured.sites:
        print(f"{name:40}", *(f"{float(tables[mode][name]):12.2e}" for mode in options.modes))


if __name__ == "__main__":
    main()
