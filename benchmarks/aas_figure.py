"""Draw the AAS of a calibrated run: sites x heads, over timesteps, and between frames. The README's figure."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import torch

from f3prune.calibration import Calibration, head_scores, pair_scores
from f3prune.calibration.aas import cross_frame

matplotlib.use("Agg")


def main() -> None:
    import matplotlib.pyplot as plt

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run directory that holds aas.safetensors")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/aas-digits.png"))
    options = parser.parse_args()
    calibration = Calibration.load(options.run / "aas.safetensors")
    names = list(calibration.mass)
    labels = [str(k) for k in range(len(names))]
    steps = len(calibration.timesteps)
    frames = next(iter(calibration.mass.values())).shape[-2]

    figure, (heads, curves, pairs) = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    scores = torch.stack([s / steps / frames for s in head_scores(calibration).values()])
    image = heads.imshow(scores, cmap="viridis", aspect="auto", vmin=0)
    heads.set(title="attention to other frames", xlabel="head", ylabel="site", yticks=range(len(names)))
    heads.set_yticklabels(labels)
    heads.set_xticks(range(scores.shape[1]))
    figure.colorbar(image, ax=heads, label="share of a query's attention")
    for k, mass in enumerate(calibration.mass.values()):
        share = cross_frame(mass).sum(-1).mean((1, 2))
        curves.plot(range(steps), share, label=f"site {labels[k]}", color=plt.cm.plasma(k / max(1, len(names))))
    curves.set(title="over denoising", xlabel="step", ylabel="share", ylim=(0, None))
    curves.legend(fontsize=7, frameon=False, ncols=2)
    total = sum(pair_scores(calibration).values()) / len(names) / steps
    image = pairs.imshow(total.masked_fill(torch.eye(frames, dtype=torch.bool), float("nan")), cmap="viridis", vmin=0)
    pairs.set(title="from frame to frame", xlabel="key frame", ylabel="query frame")
    figure.colorbar(image, ax=pairs, label="share")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output, dpi=110)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
