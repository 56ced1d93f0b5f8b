"""Writes the model card: `card.json` for programs, `README.md` for people, both from the same measured numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo_training.digits_image.dataset import vocabulary
from zoo_training.model_card import WEAK, megabytes, read_json, save_card

CHANCE = 6 / 17
"""Share of the 17 positions along an axis that count as one of its sides."""
TEXT = """\
---
library_name: diffusers
pipeline_tag: text-to-image
---
# zoo:digits-image

A small text-to-image pipeline of the standard class `diffusers.StableDiffusionPipeline`. It draws a handwritten digit
on a {size}x{size} canvas, for prompts such as "a 7". It exists as a base for one-shot tuning (`f3prune tune`), which
makes a text-to-video model of it, on one processor core.

```python
import torch
from diffusers import StableDiffusionPipeline
from f3prune import zoo

pipeline = StableDiffusionPipeline.from_pretrained(zoo.path("digits-image"))
image = pipeline(
    "a 7",
    num_inference_steps={steps},
    guidance_scale={guidance},
    generator=torch.Generator().manual_seed(0),
).images[0]
```

## What was measured

| on {pairs} prompt/seed pairs that served no other purpose | share | 95 % interval |
| --- | --- | --- |
| the digit is the one asked for | {digit:.1%} | {digit_low:.1%} to {digit_high:.1%} |
| the place is the one that the prompt names, in {places} of them | {place:.1%} | {place_low:.1%} to {place_high:.1%} |

Digits, one by one: {by_digit}.

A digit put anywhere would be in the right place in {chance:.0%} of the cases: {verdict}.

Every digit is asked for equally often, half of the time with a place, with seeds from {first_seed} on, at {steps}
denoising steps and guidance {guidance}; other settings give other numbers. The judge is the support vector machine of
`zoo:digits`, which is right about {judge:.1%} of the digits on images of held-out handwriting.
Repeat with `python -m zoo_training.digits_image.evaluate`.{note}

## Parts

{parts}

{megabytes:.1f} MB in all, float32 safetensors. Latents are {channels}x{latent}x{latent}. Inflated to video, the
denoiser has {sites} temporal attentions.

## Training

Data: scikit-learn's `load_digits` (Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine
Learning Repository, CC BY 4.0), as single frames of the clips of `zoo:digits`. A fifth is held out; of the rest, the
denoiser is shown the {typical} images of each digit that are nearest to their mean, anywhere on the canvas.

{training}

`python -m zoo_training.digits_image.train --out DIR` runs the recipe again. The batches follow the seed, but a run that
is limited by time, not by steps, ends where the machine's speed lets it, so the weights will differ.

## Limits

It knows ten digits, one per image, one size, plain handwriting, and {words} words; other words fall apart into letters
that it was not taught. Words of motion are read, and mean nothing before tuning. {weak}
"""


def write_card(folder: Path, scores: dict[str, Any], recommended: dict[str, Any], note: str = "") -> None:
    """Writes `card.json` and `README.md` into the pipeline folder from scores, settings and saved configurations."""
    unet, training = read_json(folder / "unet" / "config.json"), read_json(folder / "training.json")
    size = read_json(folder / "vae" / "config.json")["sample_size"]
    card: dict[str, Any] = {
        "name": "digits-image",
        "recommended": recommended,
        "image": {"height": size, "width": size},
        "scores": scores,
        "training": training,
        "note": note,
        "megabytes": {part: megabytes(folder / part) for part in ("unet", "vae", "text_encoder")},
    }
    save_card(folder, card, _text(card, unet))


def temporal_sites(unet: dict[str, Any]) -> int:
    """How many temporal attentions a UNet of this configuration gets: one for each of its transformers."""
    layers = unet["layers_per_block"]
    down = sum(layers for kind in unet["down_block_types"] if kind.startswith("CrossAttn"))
    up = sum(layers + 1 for kind in unet["up_block_types"] if kind.startswith("CrossAttn"))
    return int(down + 1 + up)


def _text(card: dict[str, Any], unet: dict[str, Any]) -> str:
    scores, training = card["scores"], card["training"]
    widths = " and ".join(map(str, unet["block_out_channels"]))
    notes = {
        "unet": f"denoiser, {widths} channels, cross-attention on every level",
        "vae": "autoencoder, half size; mean absolute error on held-out handwriting "
        f"{training['vae']['held_out_error']:.4f} of the brightness range",
        "text_encoder": "one-layer CLIP text model, trained with the denoiser",
    }
    weak = [digit for digit, share in scores["by_digit"].items() if share < WEAK]
    return TEXT.format(
        weak=f"It often draws another digit for {' and '.join(weak)}." if weak else "",
        size=card["image"]["height"],
        steps=card["recommended"]["num_inference_steps"],
        guidance=card["recommended"]["guidance_scale"],
        pairs=scores["pairs"],
        digit=scores["digit_accuracy"],
        digit_low=scores["digit_interval_95"][0],
        digit_high=scores["digit_interval_95"][1],
        places=scores["places_asked"],
        place=scores["place_accuracy"],
        place_low=scores["place_interval_95"][0],
        place_high=scores["place_interval_95"][1],
        note=f" {card['note']}" if card["note"] else "",
        chance=CHANCE,
        verdict="words for places were not learnt" if scores["place_interval_95"][0] <= CHANCE else "they were learnt",
        by_digit=", ".join(f"{key} {value:.0%}" for key, value in scores["by_digit"].items()),
        first_seed=scores["first_seed"],
        judge=scores["judge_digit_accuracy_on_real_images"],
        parts="\n".join(f"- `{part}`: {note} ({card['megabytes'][part]:.2f} MB)" for part, note in notes.items()),
        megabytes=sum(card["megabytes"].values()),
        channels=unet["in_channels"],
        latent=unet["sample_size"],
        sites=temporal_sites(unet),
        training=f"Seed {training['seed']}; the autoencoder took {training['vae']['steps']} steps; then "
        f"{training['steps']} steps of {training['batch']} images in {training['minutes']:.0f} minutes on one core; "
        "Muon and AdamW, noise prediction, prompts left out one time in ten, averaged weights."
        f"{' ' + training['note'] if training['note'] else ''}",
        typical=training["typical_images_per_digit"],
        words=len(vocabulary()),
    )
