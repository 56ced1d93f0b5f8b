"""Names, titles, units and senses of all metrics. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from f3prune.core.json_values import from_json_values, json_values

Better = Literal["higher", "lower"] | None
Kind = Literal["paired", "each", "distance"]


@dataclass(frozen=True)
class MetricInfo:
    """What a number means.

    Attributes:
        name: as in options and JSON.
        title: for people.
        unit: "" where there is none.
        better: which way is better; None where neither is.
        kind: "paired" compares a video with the dense model's for the same prompt and seed, "each" looks at one video
            (and its prompt), "distance" compares a whole set of videos with a set of real ones.
    """

    name: str
    title: str
    unit: str
    better: Better
    kind: Kind

    def to_json(self) -> dict[str, Any]:
        """All but the name."""
        return {key: value for key, value in json_values(self).items() if key != "name"}

    @classmethod
    def from_json(cls, name: str, value: dict[str, Any]) -> MetricInfo:
        """The inverse of ``to_json``."""
        return from_json_values(cls, {"name": name, **value})


INFO: dict[str, MetricInfo] = {
    info.name: info
    for info in (
        MetricInfo("psnr", "PSNR against dense", "dB", "higher", "paired"),
        MetricInfo("ssim", "SSIM against dense", "", "higher", "paired"),
        MetricInfo("lpips", "LPIPS against dense", "", "lower", "paired"),
        MetricInfo("flicker", "Flicker", "", "lower", "each"),
        MetricInfo("warping", "Warping error", "", "lower", "each"),
        MetricInfo("dynamic", "Dynamic degree", "% of the short edge per frame", "higher", "each"),
        MetricInfo("clipsim", "CLIPSIM", "", "higher", "each"),
        MetricInfo("prompt_digit", "Shows the digit of the prompt", "", "higher", "each"),
        MetricInfo("prompt_motion", "Moves as the prompt says", "", "higher", "each"),
        MetricInfo("fvd", "Fréchet video distance", "", "lower", "distance"),
        MetricInfo("fid", "Fréchet image distance of frames", "", "lower", "distance"),
    )
}
"""Every metric by name.

A frozen video has the least flicker and the least warping error: read both with the dynamic degree, which it loses.
"""
