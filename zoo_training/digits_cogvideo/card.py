"""Writes the model card, `card.json` for programs and `README.md` for people, from the same measured numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from f3prune.zoo.digits.dataset import vocabulary
from zoo_training.model_card import (
    describe_aims,
    describe_clips,
    measure_aims,
    measured_fields,
    megabytes,
    read_json,
    relative_to_real,
    save_card,
)

PARTS = ("transformer", "vq", "tokenizer")
TEXT = """\
---
pipeline_tag: text-to-video
---
# zoo:digits-cogvideo

A small CogVideo (Hong et al. 2022): an autoregressive transformer over image tokens, with a spatial and a temporal
attention channel in every layer. It draws a handwritten digit that crosses a {size}x{size} canvas in {frames} frames,
for prompts such as "a 7 moving left". It exists for trying and testing calibration, pruning, export and engines of
CogVideo on one processor core, with a model whose output can be judged.

```python
import torch
from f3prune import zoo
from f3prune.models import CogVideoPipeline

pipeline = CogVideoPipeline.from_pretrained(zoo.path("digits-cogvideo"))
clip = pipeline("a 7 moving left", generator=torch.Generator().manual_seed(0)).frames[0]  # f h w c in [0, 1]
```

## What was measured

| on {pairs} prompt/seed pairs that served no other purpose | share | 95 % interval |
| --- | --- | --- |
| the digit is the one asked for | {digit:.1%} | {digit_low:.1%} to {digit_high:.1%} |
| the motion is the one asked for | {motion:.1%} | {motion_low:.1%} to {motion_high:.1%} |
| both | {both:.1%} | |

Digits, one by one: {by_digit}.
Directions: {by_direction}.

{aims}

Every pair of digit and direction is asked for about equally often, in the wordings of the training, with seeds from
{first_seed} on. Tokens are drawn from the {top_k} likeliest at temperature {temperature}, guidance {guidance} away from
the empty prompt; both channels draw every frame, the first included. Other settings give other numbers. The judge is
that of `zoo:digits`; on real clips of {frames} frames of held-out handwriting it is right about {judge_digit:.1%} of
the digits and {judge_motion:.1%} of the motions. Repeat with `python -m zoo_training.digits_cogvideo.evaluate`.

## Parts

- `transformer`: `f3prune.models.CogVideo`, stage 1, no windows: {layers} layers of {heads} heads of {head_width},
  {text_len} text slots, {frames} frames of {frame_len} tokens ({transformer_mb:.2f} MB).
- `vq`: a convolutional VQ-VAE, one of {codes} tokens for every {patch}x{patch} pixels ({vq_mb:.2f} MB). On clips of
  held-out handwriting the mean error of a pixel is {vq_error:.4f} of the brightness range, {used} of the {codes} codes
  are in use, and of what has gone through it the judge gets {vq_digit:.1%} of the digits right ({vq_real:.1%} before).
- `tokenizer`: {words} words, one token each.

{megabytes:.1f} MB in all, float32 safetensors.

## Training

Data: scikit-learn's `load_digits` (Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine
Learning Repository, CC BY 4.0). A fifth is held out; of the rest, the transformer is shown the {typical} images of each
digit that are nearest to their mean, upscaled to 16x16 and moved 2 pixels a frame.

Seed {seed}. The image tokenizer took {vq_steps} steps. The transformer then took {steps} steps in {minutes:.0f} minutes
on one processor core: {phases}. Both channels and all other weights are trained together, on the tokens of all frames,
with Muon and AdamW; the prompt is left out one time in ten; the weights are a running average.{note}

`python -m zoo_training.digits_cogvideo.train --out DIR` runs the recipe again. The batches follow the seed, but a run
that is limited by time, not by steps, ends where the machine's speed lets it, so the weights will differ.

## Limits

It knows ten digits, four directions, one digit per clip, one size, one speed, plain handwriting, and {words} words; a
prompt with any other word is refused. {weak}Frame counts other than {frames} are outside
what was measured, and so is variety: with {images} images to learn from, expect handwriting close to theirs.
"""


def write_card(folder: Path, scores: dict[str, Any], recommended: dict[str, Any], note: str = "") -> None:
    """Writes `card.json` and `README.md` into the pipeline folder from scores, settings and saved configurations.

    The settings also become those that the pipeline uses by itself: `model_index.json` keeps them.
    """
    index = read_json(folder / "model_index.json") | {"settings": recommended}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    transformer, vq = read_json(folder / "transformer" / "config.json"), read_json(folder / "vq" / "config.json")
    scores = relative_to_real(scores)
    card: dict[str, Any] = {
        "name": "digits-cogvideo",
        "recommended": recommended,
        "clip": {"num_frames": transformer["frame_num"], "height": vq["image_size"], "width": vq["image_size"]},
        "scores": scores,
        "aims": measure_aims(scores, note),
        "training": read_json(folder / "training.json"),
        "megabytes": {part: megabytes(folder / part) for part in PARTS},
    }
    save_card(folder, card, _text(card, transformer, vq))


def _text(card: dict[str, Any], transformer: dict[str, Any], vq: dict[str, Any]) -> str:
    scores, training, recommended = card["scores"], card["training"], card["recommended"]
    measured = training["vq"]
    return TEXT.format(
        size=vq["image_size"],
        frames=transformer["frame_num"],
        aims=describe_aims(card),
        top_k=recommended["top_k"],
        temperature=recommended["temperature"],
        guidance=recommended["guidance_scale"],
        layers=transformer["num_layers"],
        heads=transformer["num_attention_heads"],
        head_width=transformer["hidden_size"] // transformer["num_attention_heads"],
        text_len=transformer["text_len"],
        frame_len=transformer["frame_len"],
        transformer_mb=card["megabytes"]["transformer"],
        vq_mb=card["megabytes"]["vq"],
        megabytes=sum(card["megabytes"].values()),
        codes=measured["codes"],
        used=measured["codes_used"],
        patch=vq["patch_size"],
        vq_error=measured["held_out_error"],
        vq_digit=measured["restored_digit_accuracy"],
        vq_real=measured["real_digit_accuracy"],
        vq_steps=measured["steps"],
        words=len(vocabulary()),
        typical=training["typical_images_per_digit"],
        images=10 * training["typical_images_per_digit"],
        seed=training["seed"],
        steps=training["steps"],
        minutes=training["minutes"],
        phases=describe_clips(training),
        note=f" {training['note']}" if training["note"] else "",
        **measured_fields(scores),
    )
