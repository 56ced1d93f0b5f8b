"""Writes the model card: `card.json` for programs, `README.md` for people, both from the same measured numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WEAK = 0.6
"""Digits that are right less often than this are named among the limits."""
TEXT = """\
---
library_name: diffusers
pipeline_tag: text-to-video
---
# zoo:digits

A small text-to-video pipeline of the standard class `diffusers.CogVideoXPipeline`. It draws a handwritten digit that
crosses a {height}x{width} canvas in {frames} frames, for prompts such as "a 7 moving left". It exists for trying and
testing calibration, pruning, export and engines on one processor core, with a model whose output can be judged.

```python
import torch
from diffusers import CogVideoXPipeline
from f3prune import zoo

pipeline = CogVideoXPipeline.from_pretrained(zoo.path("digits"))
clip = pipeline(
    "a 7 moving left",
    num_inference_steps={steps},
    guidance_scale={guidance},
    max_sequence_length=pipeline.transformer.config.max_text_seq_length,
    generator=torch.Generator().manual_seed(0),
).frames[0]
```

## What was measured

| on {pairs} prompt/seed pairs that served no other purpose | share | 95 % interval |
| --- | --- | --- |
| the digit is the one asked for | {digit:.1%} | {digit_low:.1%} to {digit_high:.1%} |
| the motion is the one asked for | {motion:.1%} | {motion_low:.1%} to {motion_high:.1%} |
| both | {both:.1%} | |

Digits, one by one: {by_digit}. Directions: {by_direction}.

Every pair of digit and direction is asked for equally often, in the wordings of the training, with seeds from
{first_seed} on, at {steps} denoising steps and guidance {guidance}; other settings give other numbers. The judge is a
support vector machine on cropped frames (digit) and a straight line through the centroids (motion). On real clips of
held-out handwriting it is right about {judge_digit:.1%} of the digits and {judge_motion:.1%} of the motions.
Repeat with `python -m f3prune.zoo.digits.evaluate`.

## Parts

{parts}

{megabytes:.1f} MB in all, float32 safetensors. Latents are {latent} per clip (frames, channels, rows, columns); the
denoiser sees {tokens} video tokens and {text_tokens} text tokens.

## Training

Data: scikit-learn's `load_digits` (Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine
Learning Repository, CC BY 4.0). A fifth is held out; of the rest, the denoiser is shown the {typical} images of each
digit that are nearest to their mean, upscaled to 16x16 and moved 2 pixels a frame: the handwriting is plain on purpose.
{training}
`python -m f3prune.zoo.digits.train --out DIR` runs the recipe again. The batches follow the seed, but a run that is
limited by time, not by steps, ends where the machine's speed lets it, so the weights will differ.

## Limits

It knows ten digits, four directions, one digit per clip, one size, one speed, plain handwriting, and {words} words;
other words read as unknown. {weak}
Prompts without a direction, and frame counts other than {frames}, are outside what was measured.
"""


def write_card(folder: Path, scores: dict[str, Any], recommended: dict[str, Any]) -> None:
    """Writes `card.json` and `README.md` into the pipeline folder from scores, settings and saved configurations."""
    transformer = _read(folder / "transformer" / "config.json")
    training = _read(folder / "training.json")
    sizes = {part: _megabytes(folder / part) for part in ("transformer", "vae", "text_encoder")}
    frames, height = transformer["sample_frames"], transformer["sample_height"]
    card: dict[str, Any] = {
        "name": "digits",
        "recommended": recommended,
        "clip": {"num_frames": frames, "height": 2 * height, "width": 2 * transformer["sample_width"]},
        "scores": scores,
        "training": training,
        "megabytes": sizes,
    }
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_text(card, transformer), encoding="utf-8")


def _text(card: dict[str, Any], transformer: dict[str, Any]) -> str:
    scores, training, clip = card["scores"], card["training"], card["clip"]
    patches = transformer["sample_height"] * transformer["sample_width"] // transformer["patch_size"] ** 2
    notes = {
        "transformer": f"denoiser, {transformer['num_layers']} layers of {transformer['num_attention_heads']} heads of "
        f"{transformer['attention_head_dim']}",
        "vae": "causal autoencoder, half size, no merging of frames; mean absolute error on held-out clips "
        f"{training['vae']['held_out_error']:.4f} of the brightness range",
        "text_encoder": "one-layer T5, trained with the denoiser",
    }
    phases = ", ".join(
        f"{count} clips of {frames} frame{'s' if frames != '1' else ''}" for frames, count in training["clips"].items()
    )
    weak = [digit for digit, share in scores["by_digit"].items() if share < WEAK]
    return TEXT.format(
        weak=f"It often draws another digit for {' and '.join(weak)}." if weak else "",
        height=clip["height"],
        width=clip["width"],
        frames=clip["num_frames"],
        steps=card["recommended"]["num_inference_steps"],
        guidance=card["recommended"]["guidance_scale"],
        pairs=scores["pairs"],
        digit=scores["digit_accuracy"],
        digit_low=scores["digit_interval_95"][0],
        digit_high=scores["digit_interval_95"][1],
        motion=scores["motion_accuracy"],
        motion_low=scores["motion_interval_95"][0],
        motion_high=scores["motion_interval_95"][1],
        both=scores["both_accuracy"],
        by_digit=", ".join(f"{key} {value:.0%}" for key, value in scores["by_digit"].items()),
        by_direction=", ".join(f"{key} {value:.0%}" for key, value in scores["by_direction"].items()),
        first_seed=scores["first_seed"],
        judge_digit=scores["judge_digit_accuracy_on_real_clips"],
        judge_motion=scores["judge_motion_accuracy_on_real_clips"],
        parts="\n".join(f"- `{part}`: {note} ({card['megabytes'][part]:.2f} MB)" for part, note in notes.items()),
        megabytes=sum(card["megabytes"].values()),
        latent=f"{clip['num_frames']}x{transformer['in_channels']}x{transformer['sample_height']}"
        f"x{transformer['sample_width']}",
        tokens=patches * clip["num_frames"],
        text_tokens=transformer["max_text_seq_length"],
        training=f"Seed {training['seed']}; the autoencoder took {training['vae']['steps']} steps; then "
        f"{training['steps']} steps in {training['minutes']:.0f} minutes on one to two processor cores: {phases}; "
        "Muon and AdamW, velocity prediction, prompts left out one time in ten, averaged weights."
        f"{' ' + training['note'] if training['note'] else ''}",
        typical=training["typical_images_per_digit"],
        words=len(_vocabulary()),
    )


def _vocabulary() -> list[str]:
    from f3prune.zoo.digits.dataset import vocabulary

    return vocabulary()


def _megabytes(folder: Path) -> float:
    return round(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6, 3)


def _read(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return loaded
