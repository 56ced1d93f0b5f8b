"""Model cards of the zoo: `card.json` for programs, `README.md` for people, both from the same measured numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WEAK = 0.6
"""Digits that are right less often than this are named among the limits."""
AIMS = {"digit_accuracy_relative_to_real_clips": 0.85, "motion_accuracy": 0.95}
"""Least scores that a model of clips is to reach."""
TEXT = """\
---
library_name: diffusers
pipeline_tag: text-to-video
---
# zoo:{name}

A small text-to-video pipeline of the standard class `diffusers.{pipeline}`. It draws a handwritten digit that crosses a
{height}x{width} canvas in {frames} frames, for prompts such as "a 7 moving left". It exists for trying and testing
calibration, pruning, export and engines on one processor core, with a model whose output can be judged.

```python
import torch
from diffusers import {pipeline}
from f3prune import zoo

pipeline = {pipeline}.from_pretrained(zoo.path("{name}"))
clip = pipeline(
    "a 7 moving left",
    num_inference_steps={steps},
    guidance_scale={guidance},
{arguments}
    generator=torch.Generator().manual_seed(0),
).{output}[0]
```

## What was measured

| on {pairs} prompt/seed pairs that served no other purpose | share | 95 % interval |
| --- | --- | --- |
| the digit is the one asked for | {digit:.1%} | {digit_low:.1%} to {digit_high:.1%} |
| the motion is the one asked for | {motion:.1%} | {motion_low:.1%} to {motion_high:.1%} |
| both | {both:.1%} | |

Digits, one by one: {by_digit}. Directions: {by_direction}.

{aims}

Every pair of digit and direction is asked for equally often, in the wordings of the training, with seeds from
{first_seed} on, at {steps} denoising steps and guidance {guidance}; other settings give other numbers. The judge is a
support vector machine on cropped frames (digit) and a straight line through the centroids (motion). On real clips of
held-out handwriting it is right about {judge_digit:.1%} of the digits and {judge_motion:.1%} of the motions.
Repeat with `python -m zoo_training.{package}.evaluate`.

## Parts

{parts}

{megabytes:.1f} MB in all, float32 safetensors. {shape}

## Training

Data: scikit-learn's `load_digits` (Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine
Learning Repository, CC BY 4.0). A fifth is held out; of the rest, the denoiser is shown the {typical} images of each
digit that are nearest to their mean, upscaled to 16x16 and moved 2 pixels a frame: the handwriting is plain on purpose.
{training}
`python -m zoo_training.{package}.train --out DIR` runs the recipe again. The batches follow the seed, but a run that is
limited by time, not by steps, ends where the machine's speed lets it, so the weights will differ.

## Limits

It knows ten digits, four directions, one digit per clip, one size, one speed, plain handwriting, and {words} words;
other words read as unknown. {weak}
Prompts without a direction, and frame counts other than {frames}, are outside what was measured.
"""


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    loaded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return loaded


def megabytes(folder: Path) -> float:
    """Size of all the files in a folder, in MB."""
    return round(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6, 3)


def save_card(folder: Path, card: dict[str, Any], text: str) -> None:
    """Writes `card.json` and `README.md`."""
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(text, encoding="utf-8")


def relative_to_real(scores: dict[str, Any]) -> dict[str, Any]:
    """The scores with that of the digit as a ratio to the same score of real clips."""
    ratio = scores["digit_accuracy"] / scores["judge_digit_accuracy_on_real_clips"]
    return scores | {"digit_accuracy_relative_to_real_clips": round(ratio, 4)}


def measure_aims(scores: dict[str, Any], note: str) -> dict[str, Any]:
    """`least` (score by name), `met` (truth by name) and the note."""
    return {"least": AIMS, "met": {name: scores[name] >= least for name, least in AIMS.items()}, "note": note}


def describe_aims(card: dict[str, Any]) -> str:
    """The aims of a model of clips, and how far it came, in words."""
    lines = []
    for name, least in card["aims"]["least"].items():
        verdict = "met" if card["aims"]["met"][name] else "not met"
        lines.append(
            f"- {name.replace('_', ' ')}: at least {least:.2f} was the aim, {card['scores'][name]:.3f} measured"
            f" ({verdict})"
        )
    note = card["aims"]["note"]
    return "\n".join(["Aims:", "", *lines, *(["", note] if note else [])])


def measured_fields(scores: dict[str, Any]) -> dict[str, Any]:
    """The scores of clips as fields of a text."""
    weak = [digit for digit, share in scores["by_digit"].items() if share < WEAK]
    return {
        "pairs": scores["pairs"],
        "digit": scores["digit_accuracy"],
        "digit_low": scores["digit_interval_95"][0],
        "digit_high": scores["digit_interval_95"][1],
        "motion": scores["motion_accuracy"],
        "motion_low": scores["motion_interval_95"][0],
        "motion_high": scores["motion_interval_95"][1],
        "both": scores["both_accuracy"],
        "by_digit": ", ".join(f"{key} {value:.0%}" for key, value in scores["by_digit"].items()),
        "by_direction": ", ".join(f"{key} {value:.0%}" for key, value in scores["by_direction"].items()),
        "first_seed": scores["first_seed"],
        "judge_digit": scores["judge_digit_accuracy_on_real_clips"],
        "judge_motion": scores["judge_motion_accuracy_on_real_clips"],
        "weak": f"It often draws another digit for {' and '.join(weak)}. " if weak else "",
    }


def describe_clips(training: dict[str, Any]) -> str:
    """How many clips of how many frames a training run saw, in words."""
    clips = training["clips"].items()
    return ", ".join(f"{count} clips of {frames} frame{'s' if frames != '1' else ''}" for frames, count in clips)


@dataclass(frozen=True)
class DiffusionCard:
    """The card of a model that denoises clips.

    Attributes:
        name: in the zoo, without prefix.
        pipeline: its diffusers class.
        arguments: further keyword arguments of a call, as Python source.
        output: the attribute of the result that holds the clips.
        clip: `folder -> {"num_frames", "height", "width"}`.
        parts: `(folder, training) -> note` on each part, by the part's folder.
        shape: `folder -> sentences` on latents and tokens.
        recipe: sentence on what is particular to the training.
    """

    name: str
    pipeline: str
    arguments: tuple[str, ...]
    output: str
    clip: Callable[[Path], dict[str, int]]
    parts: Callable[[Path, dict[str, Any]], dict[str, str]]
    shape: Callable[[Path], str]
    recipe: str

    def write(self, folder: Path, scores: dict[str, Any], recommended: dict[str, Any], note: str = "") -> None:
        """Writes `card.json` and `README.md` into the folder from scores, settings and saved configurations."""
        training = read_json(folder / "training.json")
        notes = self.parts(folder, training)
        scores = relative_to_real(scores)
        card: dict[str, Any] = {
            "name": self.name,
            "recommended": recommended,
            "clip": self.clip(folder),
            "scores": scores,
            "aims": measure_aims(scores, note),
            "training": training,
            "megabytes": {part: megabytes(folder / part) for part in notes},
        }
        save_card(folder, card, self._text(folder, card, notes))

    def _text(self, folder: Path, card: dict[str, Any], notes: dict[str, str]) -> str:
        from f3prune.zoo.digits.dataset import vocabulary

        training, clip = card["training"], card["clip"]
        continued = ""
        if "continued" in training:
            last = training["continued"]
            continued = (
                f" The last {last['steps']} steps ({last['minutes']:.0f} minutes) trained a finished pipeline further."
                f"{' ' + last['earlier_note'] if last['earlier_note'] else ''}"
            )
        return TEXT.format(
            name=self.name,
            package=self.name.replace("-", "_"),
            pipeline=self.pipeline,
            arguments="\n".join(f"    {argument}," for argument in self.arguments),
            output=self.output,
            height=clip["height"],
            width=clip["width"],
            frames=clip["num_frames"],
            steps=card["recommended"]["num_inference_steps"],
            guidance=card["recommended"]["guidance_scale"],
            aims=describe_aims(card),
            parts="\n".join(f"- `{part}`: {note} ({card['megabytes'][part]:.2f} MB)" for part, note in notes.items()),
            megabytes=sum(card["megabytes"].values()),
            shape=self.shape(folder),
            training=f"Seed {training['seed']}; the autoencoder took {training['vae']['steps']} steps; then "
            f"{training['steps']} steps in {training['minutes']:.0f} minutes on one to two processor cores: "
            f"{describe_clips(training)}; {self.recipe}.{continued}"
            f"{' ' + training['note'] if training['note'] else ''}",
            typical=training["typical_images_per_digit"],
            words=len(vocabulary()),
            **measured_fields(card["scores"]),
        )
