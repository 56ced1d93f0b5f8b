"""What the page shows of any run: its head, the videos, what was pruned, what it was made from."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from f3prune.calibration.scores import score_of
from f3prune.calibration.selection import AUTO
from f3prune.report.charts import Scale
from f3prune.report.text import Table, finite, number

_SHOWN = 400
"""Heads of a model whose scores are shown without being asked for."""
_UNITS = {"layer": "layers", "head": "heads", "frame-pair": "frame pairs"}


@dataclass(frozen=True)
class Media:
    """Files that are shown in place; ``None`` where the run has none.

    Attributes:
        pruned, dense: MP4 files.
        frames: PNG file, frames of both under each other.
        fps: frames per second of both videos.
    """

    pruned: bytes | None = None
    dense: bytes | None = None
    frames: bytes | None = None
    fps: float = 8.0


@dataclass(frozen=True)
class Head:
    """The top of the page: the model, what was made of it, and the numbers that matter most with their meanings."""

    model: str
    what: str
    tiles: Sequence[tuple[str, str]]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Head:
        """The head; ``data`` is the content of ``report.json``."""
        pruning = data["pruning"]
        what = f"{data['denoiser_class']} ({data['family']}). {_pruned(pruning)}"
        if count := pruning["refit"]:
            plural = "s" * (count > 1)
            what += f" Output projections are refitted on {count} generation{plural} of the dense model."
        note = " Conditioning was synthetic: structure, speed and export are measured, not quality."
        return cls(str(data["model"]), what + note * data["synthetic"], _tiles(data))


def _pruned(pruning: Mapping[str, Any]) -> str:
    share = f"{100 * pruning['alpha']:g} %"
    if pruning["mode"] == AUTO:
        return f"Mode auto chose for every layer what takes its place, to save {share} of what the layers multiply."
    return (
        f"{share} of its {_UNITS[pruning['granularity']]} pruned, those of least {score_of(pruning['score']).title}, "
        f"aggregated over {pruning['aggregate']}, mode {pruning['mode']}."
    )


def _tiles(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    tiles: list[tuple[str, str]] = []
    for name in ("sites", "heads", "pairs"):
        gone, of = (max(counts[key] for counts in data["pruning"]["counts"]) for key in (f"{name}_pruned", name))
        if gone and not (name == "heads" and tiles):
            tiles.append((f"{gone} of {of}", {"pairs": "frame pairs pruned"}.get(name, f"{name} pruned")))
    before, after = data["parameters"]["before"], max(data["parameters"]["after"])
    if after < before:
        tiles.append((f"−{100 * (1 - after / before):.1f} %", "parameters"))
    if data["speed"]:
        speedup = data["speed"]["speedup"]["engine"]
        tiles.append((f"{speedup:.2f}×", f"speed of a {data['speed']['unit']}, engine to engine"))
    if data["ceiling"]:
        tiles.append((f"{data['ceiling']['allow']:.2f}×", "GEMM speed-up bound"))
    if data["fidelity"]:
        value = data["fidelity"]["psnr"]
        tiles.append(("equal" if value is None else f"{value:.1f} dB", "PSNR to the dense video"))
        tiles.append((f"{data['fidelity']['ssim']:.3f}", "SSIM to the dense video"))
    if data["parity"]:
        errors = [finite(step["rel_l2"]) for step in data["parity"]["export"]["steps"]]
        worst = None if None in errors else max((error for error in errors if error is not None), default=None)
        tiles.append((number(worst) if worst is None else f"{worst:.1e}", "relative L2, engine to PyTorch"))
    return tiles


@dataclass(frozen=True)
class Video:
    """Both videos and some of their frames; ``clips`` are the kind, what made it, and its ``data:`` address."""

    prompt: str
    clips: Sequence[tuple[str, str, str]]
    frames: str
    fps: float
    psnr: Table
    flicker: tuple[float, float]

    @classmethod
    def of(cls, data: Mapping[str, Any], media: Media) -> Video | None:
        """The section, if a video was generated."""
        if media.frames is None:
            return None
        made = (("dense", "Dense, PyTorch", media.dense), ("pruned", "Pruned, engine", media.pruned))
        clips = [(kind, meaning, _address(file, "video/mp4")) for kind, meaning, file in made if file]
        found = data["fidelity"]
        row = ["equal" if value is None else round(float(value), 1) for value in found["psnr_per_frame"]]
        psnr = Table.of(["frame", *map(str, range(len(row)))], [["PSNR, dB", *row]])
        flicker = (found["flicker_reference"], found["flicker_candidate"])
        return cls(data["prompt"]["prompt"], clips, _address(media.frames, "image/png"), media.fps, psnr, flicker)


def _address(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@dataclass(frozen=True)
class Heat:
    """Scores of the sites' heads in one stage; many are behind a line, ``folded``, until they are asked for."""

    name: str
    sites: Mapping[str, Mapping[str, Any]]
    scale: Scale
    heads: int
    folded: str

    @classmethod
    def of(cls, sites: Mapping[str, Mapping[str, Any]], name: str) -> Heat:
        """The scores of a stage's sites."""
        counts = [len(site["aas"]) for site in sites.values()]
        folded = f"{name}: {len(sites)} sites, {sum(counts)} heads" if sum(counts) > _SHOWN else ""
        return cls(name, sites, Scale.of([site["aas"] for site in sites.values()]), max(counts, default=0), folded)

    def text(self, score: float) -> str:
        """A score, with as many digits as the largest leaves room for."""
        return f"{score:.{max(0, 4 - len(f'{self.scale.most:.0f}'))}f}"


@dataclass(frozen=True)
class Pruned:
    """What every stage prunes, the AAS of every head, and ``chosen_by``, what chose if that was another score."""

    counts: Table
    chosen_by: str | None
    scores: Sequence[Heat]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Pruned:
        """The section."""
        parameters, score = data["parameters"], data["pruning"]["score"]
        rows: list[list[Any]] = []
        for stage, counts, after in zip(data["stages"], data["pruning"]["counts"], parameters["after"], strict=True):
            lost = [f"{counts[f'{name}_pruned']:,} of {counts[name]:,}" for name in ("sites", "heads", "pairs")]
            rows.append([str(len(rows)), _steps(stage), *lost, parameters["before"], after])
        header = ["stage", "steps", "whole sites", "heads", "frame pairs", "parameters before", "after"]
        many = len(rows) > 1
        scores = [
            Heat.of(stage["sites"], f"Stage {index}, steps {_steps(stage)}" if many else "Scores of sites and heads")
            for index, stage in enumerate(data["stages"])
        ]
        return cls(Table.of(header, rows), None if score == "aas" else score_of(score).title, scores)


def _steps(stage: Mapping[str, Any]) -> str:
    return f"{stage['steps'][0]}–{stage['steps'][1] - 1}"
