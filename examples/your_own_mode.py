"""Add a mode: a pruned layer's queries see the first frame and text. One class, and everything knows it."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

import f3prune
from f3prune.calibration import denoise_synthetic
from f3prune.calibration.attention_hook import AttentionCall
from f3prune.calibration.replacements import Replacement, register
from f3prune.testing import TINY_SHAPES, tiny_denoiser


@register("first-frame")
@dataclass(frozen=True)
class FirstFrame(Replacement):
    title: ClassVar[str] = "the first frame and text"
    layouts: ClassVar[tuple[str, ...]] = ("spatiotemporal",)

    def attend(self, call: AttentionCall) -> torch.Tensor:
        first = slice(call.video.start, call.video.start + call.tokens_per_frame)
        text = [slice(0, call.video.start), slice(call.video.stop, None)]
        key, value = (torch.cat([t[:, :, s] for s in (first, *text)], dim=2) for t in (call.key, call.value))
        return F.scaled_dot_product_attention(call.query, key, value, scale=call.scale)

    def reference(self, call: AttentionCall) -> torch.Tensor:
        hidden = torch.ones(call.key.shape[2], dtype=torch.bool)
        hidden[call.video] = False
        hidden[call.video.start : call.video.start + call.tokens_per_frame] = True
        return F.scaled_dot_product_attention(call.query, call.key, call.value, attn_mask=hidden, scale=call.scale)


def main() -> None:
    denoiser, shape = tiny_denoiser("cogvideox"), TINY_SHAPES["cogvideox"]
    measured = f3prune.calibrate(denoiser, lambda: denoise_synthetic(denoiser, shape, steps=2))
    config = f3prune.PruneConfig(alpha=0.5, mode="first-frame", score="aas")
    masks = f3prune.select_masks(measured, config)
    f3prune.prune_denoiser(denoiser, masks)
    print(f"{sum(not m.untouched for m in masks.stages[0].sites.values())} layers see the first frame")


if __name__ == "__main__":
    main()
