"""Trains the feature network on real clips: `python -m zoo_training.features.train --out DIR`.

Leaves `model.safetensors`, `card.json` and `README.md` in DIR.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from f3prune.zoo.digits.dataset import DIRECTIONS, FRAMES, Clips, ClipSource, load_split
from f3prune.zoo.features import WEIGHTS
from f3prune.zoo.features.network import FEATURES, STILL, FeatureNetwork
from zoo_training.digits.progress import Log
from zoo_training.features.augmentation import augment

LENGTHS = (FRAMES, 5)
"""Frames of the clips: those of the zoo's models."""
STEPS = (FRAMES, 5, 1)
"""Frames of the clips, step by step; of single images, shown as clips that do not move, only the digit is asked."""
AIM = 0.97
"""Least share of digits, and of directions, that is to be right on held-out clips."""
TEXT = """\
# zoo: feature network

A 3D convolutional network of {parameters} parameters for Fréchet distances between sets of the zoo's clips, as FVD
takes them on I3D. Its numbers can be compared with each other only, not with published ones.

```python
from f3prune.zoo import features

network = features.load()
network.features(videos)  # b f h w c in [0, 1] -> b {width}
network.frame_features(videos)  # b f h w c in [0, 1] -> (b f) {width}
```

It was trained for {minutes:.1f} minutes ({steps} steps of {batch} clips, seed {seed}) to tell digit and direction of
clips of {lengths} frames, and the digit of single images, with noise, blur and changed brightness. On held-out
handwriting:

| frames | digit right | direction right |
| --- | --- | --- |
{rows}

The aim was {aim:.0%} for each: {verdict}. Repeat with `python -m zoo_training.features.train`.

Data: scikit-learn's `load_digits` (Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine
Learning Repository, CC BY 4.0).
"""


def brightness_of(clips: Clips) -> torch.Tensor:
    """Brightness `b f h w` (float32 in [0, 1]); a single image is repeated."""
    brightness = clips.video[:, 0] * 0.5 + 0.5
    return brightness.expand(-1, STILL, -1, -1) if brightness.shape[1] == 1 else brightness


def labels_of(clips: Clips) -> tuple[torch.Tensor, torch.Tensor]:
    """Digits `b` and directions `b` (int64, places in `DIRECTIONS`)."""
    ways = list(DIRECTIONS)
    return torch.tensor(clips.digits), torch.tensor([ways.index(way) for way in clips.directions])


def measure(network: FeatureNetwork, frames: int, count: int = 1000, seed: int = 1) -> dict[str, float]:
    """Shares of right digits and, unless it is single images, directions on clips of held-out handwriting."""
    clips = ClipSource(load_split(held_out=True), seed).batch(count, frames)
    found = network.classify(brightness_of(clips)[..., None].numpy())
    names = ("digit_accuracy", "direction_accuracy")[: 1 + (frames > 1)]
    pairs = zip(names, found, labels_of(clips), strict=False)
    return {name: round(float(np.mean(guess == truth.numpy())), 4) for name, guess, truth in pairs}


def train(
    minutes: float, max_steps: int | None, seed: int, batch: int, log_path: Path
) -> tuple[FeatureNetwork, dict[str, Any]]:
    """The trained network, and how it was trained."""
    torch.manual_seed(seed)
    network = FeatureNetwork().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=0.02)
    source = ClipSource(load_split(), seed)
    started, step, share = time.monotonic(), 0, 0.0
    with Log("features", log_path) as log:
        while share < 1.0:
            for group in optimizer.param_groups:
                group["lr"] = 4e-3 * min(1.0, (step + 1) / 20) * (1.0 - share)
            frames = STEPS[step % len(STEPS)]
            clips = source.batch(batch, frames)
            (digit_logits, direction_logits), (digits, directions) = (
                network(augment(brightness_of(clips))),
                labels_of(clips),
            )
            loss = torch.nn.functional.cross_entropy(digit_logits, digits)
            if frames > 1:
                loss = loss + torch.nn.functional.cross_entropy(direction_logits, directions)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
            seconds = time.monotonic() - started
            share = min(1.0, step / max_steps if max_steps else seconds / 60 / minutes)
            log.report(share, step=step, loss=loss.item())
    facts = {"seed": seed, "steps": step, "batch": batch, "minutes": round(seconds / 60, 1)}
    return network.eval().requires_grad_(False), facts


def write_card(network: FeatureNetwork, training: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Measures the network and writes `card.json` and `README.md`; returns the card."""
    scores = {str(frames): measure(network, frames) for frames in STEPS}
    card = {
        "name": "features",
        "features": FEATURES,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "scores": scores,
        "aims": {"least": AIM, "met": min(min(found.values()) for found in scores.values()) >= AIM},
        "training": training,
    }
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    rows = [
        f"| {frames} | {found['digit_accuracy']:.1%} | "
        f"{format(found['direction_accuracy'], '.1%') if 'direction_accuracy' in found else ''} |"
        for frames, found in scores.items()
    ]
    text = TEXT.format(
        parameters=card["parameters"],
        width=FEATURES,
        lengths=" or ".join(map(str, LENGTHS)),
        rows="\n".join(rows),
        aim=AIM,
        verdict="met" if min(min(found.values()) for found in scores.values()) >= AIM else "not met",
        **training,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    return card


def main(arguments: list[str] | None = None) -> None:
    """Command line of the training."""
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=WEIGHTS.parent)
    parser.add_argument("--minutes", type=float, default=3.0, help="training time")
    parser.add_argument("--steps", type=int, help="stop after this many steps instead")
    parser.add_argument("--batch", type=int, default=64, help="clips of a step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument("--log", type=Path, default=Path("features.jsonl"), help="file for the losses")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    network, training = train(options.minutes, options.steps, options.seed, options.batch, options.log)
    save_file(network.state_dict(), options.out / WEIGHTS.name)
    Console().print_json(json.dumps(write_card(network, training, options.out)))


if __name__ == "__main__":
    main()
