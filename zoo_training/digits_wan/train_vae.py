"""Trains the autoencoder on crops of short clips, the last part of the time on whole frames; then its statistics.

``python -m zoo_training.digits_wan.train_vae --out DIR --seconds 150 --device cuda``; with ``--start-from FOLDER`` it
trains the weights there further, on longer clips.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from f3prune.zoo.digits.dataset import load_split
from f3prune.zoo.digits_wan.dataset import CANVAS, ClipSource
from zoo_training.digits_wan.architecture import build_vae


@dataclass(frozen=True)
class Phase:
    """Until ``until`` (share of the time), crops of ``crop`` pixels of clips of ``frames`` frames.

    ``share`` is the batch's size, as a part of the recipe's.
    """

    until: float
    crop: int
    frames: int
    share: float


CURRICULUM = (
    Phase(0.45, 48, 1, 1.0),
    Phase(0.75, 48, 5, 0.5),
    Phase(0.93, 64, 9, 0.25),
    Phase(1.00, CANVAS, 9, 0.125),
)
"""Colours and strokes are learnt from single frames, a tenth of a short clip's price, then four frames in one.
Whole frames come last, so that attention in the middle sees as many places as later."""
FURTHER = (Phase(0.80, 56, 17, 0.125), Phase(1.00, CANVAS, 17, 0.03))
"""For weights that know short clips: colours drift in latent frames later than those that were trained."""
SAVE_EVERY = 30.0
GAP = 1e-3
"""Weight of the distance between the means of first and later latent frames, in standard deviations: latents are
normalised by one mean for all frames."""


@dataclass(frozen=True)
class VaeRecipe:
    """How to train.

    Attributes:
        seconds: of training.
        device: where.
        batch: crops in the largest batch.
        learning_rate: of AdamW at its highest.
        kl: weight of the latents' divergence from a normal distribution.
        seed: of weights and clips.
        digit_weight: how much more a pixel of a digit counts than one of the background.
        start: folder of weights to train further, or None.
        statistics: clips that the latents' mean and deviation are taken from.
    """

    seconds: float
    device: str = "cpu"
    batch: int = 64
    learning_rate: float = 2e-3
    kl: float = 1e-5
    seed: int = 0
    digit_weight: float = 4.0
    start: Path | None = None
    statistics: int = 16


def train(recipe: VaeRecipe, out: Path) -> dict[str, Any]:
    """Train, writing the averaged weights to ``out`` every half minute and at the end.

    Returns:
        what was done and reached: steps, seconds, the held-out error.
    """
    torch.manual_seed(recipe.seed)
    device = torch.device(recipe.device)
    vae = build_vae() if recipe.start is None else load_vae(recipe.start)
    vae = vae.to(device)
    average = copy.deepcopy(vae).requires_grad_(False)
    for module in vae.modules():
        if isinstance(module, torch.nn.Conv3d):  # channels last: half the time of a call on a GPU
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    source = ClipSource(load_split(), recipe.seed, device)
    started = saved = time.monotonic()
    step, log = 0, []
    while (share := (time.monotonic() - started) / recipe.seconds) < 1.0:
        warm = min(1.0, (step + 1) / 50)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * share))
        curriculum = CURRICULUM if recipe.start is None else FURTHER
        phase = next(phase for phase in curriculum if share < phase.until)
        video = _show(source, max(1, round(recipe.batch * phase.share)), phase)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            video = video.contiguous(memory_format=torch.channels_last_3d)
            posterior = vae.encode(video).latent_dist
            restored = decode_without_limits(vae, posterior.sample())
        error = (restored.float() - video).abs()
        distance = error + 0.5 * error.square()
        # Most of a frame is background, which is learnt at once.
        weight = 1 + recipe.digit_weight * (video.amax(dim=1, keepdim=True) > -0.8)
        divergence = (
            0.5 * (posterior.mean.float().square() + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        )
        loss = (distance * weight).mean() + recipe.kl * divergence + GAP * _gap(posterior.mean.float())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        step += 1
        decay = min(0.99, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(vae.parameters()), 1.0 - decay)
        if step % 50 == 0 or step < 4:
            line = {
                "step": step,
                "seconds": round(time.monotonic() - started, 1),
                "error": float(error.detach().mean()),
                "gap": float(_gap(posterior.mean.detach().float())),
            }
            log.append(line)
            print(json.dumps(line), flush=True)
        if time.monotonic() - saved > SAVE_EVERY:
            average.save_pretrained(out, safe_serialization=True)
            saved = time.monotonic()
    facts = finish(average, recipe, out)
    facts |= {"steps": step, "seconds": round(time.monotonic() - started), "log": log}
    return facts


def decode_without_limits(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Latents ``b c f h w`` to a video ``b 3 4(f-1)+1 4h 4w`` as ``vae.decode`` gives it, values outside [-1, 1] too.

    ``decode`` cuts them off, and with them the gradient: most of a frame is background at -1, so a decoder that once
    gives less than that everywhere would stay there.
    """
    vae.clear_cache()
    hidden = vae.post_quant_conv(latents)
    parts = []
    for frame in range(latents.shape[2]):
        vae._conv_idx = [0]
        now = hidden[:, :, frame : frame + 1]
        parts.append(vae.decoder(now, feat_cache=vae._feat_map, feat_idx=vae._conv_idx, first_chunk=frame == 0))
    vae.clear_cache()
    return torch.cat(parts, dim=2)


def load_vae(folder: Path) -> Any:
    """Trained weights, float32."""
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan.from_pretrained(folder, torch_dtype=torch.float32)


def _gap(latents: torch.Tensor) -> torch.Tensor:
    """Squared distance of the means of first and later frames of ``b c f h w``, in variances; 0 of single frames."""
    if latents.shape[2] == 1:
        return latents.new_zeros(())
    first, later = latents[:, :, :1], latents[:, :, 1:]
    gap = first.mean(dim=(0, 2, 3, 4)) - later.mean(dim=(0, 2, 3, 4))
    return (gap.square() / later.detach().var(dim=(0, 2, 3, 4)).clamp(min=1e-2)).mean()


def _show(source: ClipSource, size: int, phase: Phase) -> torch.Tensor:
    """A batch of crops ``b c f h w``, each around a pixel of a digit in some frame: most of a clip is background."""
    video = source.batch(size, phase.frames, two_share=0.8).video
    if phase.crop == CANVAS:
        return video
    crops = []
    for clip in video:
        shown = (clip[:, int(source.generator.integers(phase.frames))].amax(dim=0) > 0.0).nonzero()
        row, column = shown[int(source.generator.integers(len(shown)))].tolist()
        top, left = (
            min(max(0, place - int(source.generator.integers(phase.crop))), CANVAS - phase.crop)
            for place in (row, column)
        )
        crops.append(clip[..., top : top + phase.crop, left : left + phase.crop])
    return torch.stack(crops)


@torch.no_grad()
def finish(vae: Any, recipe: VaeRecipe, out: Path) -> dict[str, Any]:
    """Set the latents' statistics, from the training handwriting, and write the weights.

    Returns:
        what ``measure`` finds, and the number of parameters.
    """
    source = ClipSource(load_split(), recipe.seed + 1, recipe.device)
    shown = [source.batch(1).video for _ in range(recipe.statistics)]
    values = torch.cat([_encode(vae, video).transpose(0, 1).flatten(1) for video in shown], dim=1)
    mean, deviation = values.mean(dim=1).tolist(), values.std(dim=1).tolist()
    final = build_vae([round(x, 4) for x in mean], [round(x, 4) for x in deviation])
    final.load_state_dict({name: value.cpu() for name, value in vae.state_dict().items()})
    final.save_pretrained(out, safe_serialization=True)
    parameters = sum(parameter.numel() for parameter in final.parameters())
    return measure(vae, recipe.device, recipe.seed, max(1, recipe.statistics // 4)) | {"parameters": parameters}


@torch.no_grad()
def measure(vae: Any, device: str, seed: int = 0, clips: int = 4) -> dict[str, float]:
    """What whole clips of held-out handwriting lose in the autoencoder.

    Returns:
        ``held_out_error``: mean absolute error, and ``held_out_digit_error``, that of the digits' pixels alone, as
        shares of the brightness range.
    """
    source = ClipSource(load_split(held_out=True), seed, device)
    errors, inked = [], []
    for _ in range(clips):
        video = source.batch(1).video
        latent = _encode(vae, video)
        with torch.autocast(video.device.type, torch.bfloat16, enabled=video.device.type == "cuda"):
            restored = vae.decode(latent.to(vae.dtype)).sample
        error = (restored.float() - video).abs() / 2
        ink = (video.amax(dim=1, keepdim=True) > -0.8).expand_as(error)
        errors.append(error.mean())
        inked.append(error[ink].mean())
    return {
        "held_out_error": round(float(torch.stack(errors).mean()), 5),
        "held_out_digit_error": round(float(torch.stack(inked).mean()), 5),
    }


def _encode(vae: Any, video: torch.Tensor) -> torch.Tensor:
    """Latents ``b c f h w``, float32, not normalised."""
    with torch.autocast(video.device.type, torch.bfloat16, enabled=video.device.type == "cuda"):
        latent: torch.Tensor = vae.encode(video.to(vae.dtype)).latent_dist.mode()
    return latent.float()


def main(arguments: list[str] | None = None) -> None:
    """Command line of the training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=VaeRecipe.batch)
    parser.add_argument("--learning-rate", type=float, default=VaeRecipe.learning_rate)
    parser.add_argument("--start-from", type=Path, help="folder of weights to train further")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    recipe = VaeRecipe(
        options.seconds,
        options.device,
        options.batch,
        learning_rate=options.learning_rate,
        start=options.start_from,
    )
    facts = train(recipe, options.out)
    (options.out / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in facts.items() if key != "log"}))


if __name__ == "__main__":
    main()
