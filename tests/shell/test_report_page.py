"""The sections of the report's page, rendered from contents of report.json."""

from __future__ import annotations

import html.parser
import json
import re
from importlib import resources
from typing import Any

import pytest
import report_data

from f3prune.calibration.scores import names, score_of
from f3prune.report.build import in_module_order
from f3prune.report.charts import LEVELS, Axis, Grid, Scale, bins
from f3prune.report.page import Media, render


class Tables(html.parser.HTMLParser):
    """Tags, attributes, and the cells of every table row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in {"td", "th"}

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data

    def row(self, name: str) -> list[str]:
        return next(row for row in self.rows if row[0] == name)


def page(**changes: Any) -> str:
    return render({**report_data.report(), **changes}, Media())


def test_every_name_is_escaped() -> None:
    text = render(report_data.report(), Media(b"video", b"video", b"picture"))
    assert report_data.NASTY not in text
    assert "<img src=http" not in text
    found = Tables(text)
    assert [attrs["src"] for tag, attrs in found.tags if tag == "img"] == ["data:image/png;base64,cGljdHVyZQ=="]
    assert not [name for _, attrs in found.tags for name in attrs if name.startswith("on")]


def test_pictures_are_described_and_tables_have_heads() -> None:
    found = Tables(render(report_data.report(), Media(b"video", b"video", b"picture")))
    assert all(attrs.get("alt") for tag, attrs in found.tags if tag == "img")
    drawn = [attrs for tag, attrs in found.tags if tag == "svg" and attrs.get("role") == "img"]
    assert len(drawn) > 20
    assert all(attrs["aria-label"] for attrs in drawn)
    assert {attrs["scope"] for tag, attrs in found.tags if tag == "th"} == {"row", "col"}
    identifiers = [attrs["id"] for _, attrs in found.tags if attrs.get("id")]
    assert len(identifiers) == len(set(identifiers))


def test_quality_has_intervals_and_verdicts() -> None:
    found = Tables(page())
    assert found.row("PSNR, dB ↑")[2:] == ["–", "21.3 [20.4, 22.1]", "–", "–"]
    assert found.row("LPIPS ↓")[3] == "0.081"
    assert found.row("Text alignment ↑")[1:] == [
        "each by itself",
        "0.912 [0.87, 0.95]",
        "0.861 [0.81, 0.9]",
        "−0.051 [−0.083, −0.02]",
        "worse",
    ]


@pytest.mark.parametrize("score", names())
def test_the_page_says_which_score_chose(score: str) -> None:
    data = report_data.report()
    text = page(pruning={**data["pruning"], "score": score})
    assert f"those of least {score_of(score).title}," in text
    assert ("chose, not this score" in text) == (score != "aas")


def test_the_head_says_what_mode_auto_and_a_refit_did() -> None:
    pruning = report_data.report()["pruning"]
    text = page(pruning={**pruning, "mode": "auto", "refit": 8})
    assert "Mode auto chose for every layer what takes its place, to save 40 %" in text
    assert "refitted on 8 generations of the dense model" in text
    assert "refitted" not in page(pruning=pruning)


def test_better_lies_at_the_right_whichever_way_a_metric_goes() -> None:
    text = page()
    for name, kind in (("Text alignment", "bad"), ("Fréchet video distance", "good"), ("Flicker", "plain")):
        chart = rf'aria-label="pruned minus dense, {name}: .*?class="dot (\w+)" cx="([\d.]+)%"'
        found = re.search(chart, text, re.DOTALL)
        assert found is not None
        assert found.group(1) == kind
        assert (float(found.group(2)) > 50) == (kind == "good")


def test_the_front_comes_first_and_the_rest_is_folded() -> None:
    sweep = report_data.sweep(17)
    text = page(sweep=sweep)
    rows = [row for row in Tables(text).rows if len(row) == 9 and row[0].isdigit()]
    assert [row[0] for row in rows] == [str(index) for index in range(1, 18)]
    front = sum(point["pareto"] for point in sweep["points"])
    assert ["front" in row for row in rows] == [True] * front + [False] * (17 - front)
    speeds = [float(row[3].rstrip("×")) for row in rows]
    assert speeds[:front] == sorted(speeds[:front], reverse=True)
    assert "5 more configurations" in text
    assert "more configurations" not in page(sweep=report_data.sweep(12))


@pytest.mark.parametrize("name", ["quality", "sweep", "speed", "parity", "ceiling"])
def test_a_section_without_content_is_left_out(name: str) -> None:
    assert len(page(**{name: None})) < len(page())
    assert (f'id="{name}"' in page(**{name: None})) is False
    assert not page(**{name: None}).count(f'href="#{name}"')


def test_a_sweep_of_one_point_without_any_interval_is_shown() -> None:
    sweep = report_data.sweep(1)
    sweep["points"][0]["quality"] = {"psnr": {"value": None, "interval": None}}
    assert "built and timed: 1." in page(sweep=sweep)


def test_pruned_heads_are_marked_in_their_stage_only() -> None:
    data = report_data.report(sites=2, heads=4, timesteps=16, stages=2)
    text = render(data, Media())
    strikes = re.findall(r'<path class="gone" d="([^"]*)"', text)
    # Heads 0 and 2 in the first eight timesteps, 1 and 3 in the others.
    assert strikes == ["M0 0.5H8M0 2.5H8M8 1.5H16M8 3.5H16"]
    assert text.count("partly pruned") == 2
    assert "Stage 1, steps 8–15" in text
    assert Tables(text).row("transformer_blocks.0.attn1")[1:] == [
        f"{value:.1f}" for value in data["stages"][0]["sites"]["transformer_blocks.0.attn1"]["aas"]
    ]


def test_blocks_stand_in_the_order_of_the_model() -> None:
    names = [f"transformer_blocks.{index}.attn1" for index in (0, 1, 2, 10)]
    stage = json.loads(json.dumps({"steps": [0, 8], "sites": {name: len(name) for name in names}}, sort_keys=True))
    assert list(stage["sites"]) != names
    (found,) = in_module_order([stage], names)
    assert list(found["sites"]) == names
    assert found == stage


def test_pruned_frame_pairs_are_marked() -> None:
    text = render(report_data.report(sites=1, frames=5, granularity="frame-pair"), Media())
    lost = sum((key + query) % 3 == 0 and key != query for key in range(5) for query in range(5))
    (drawn,) = re.findall(r'<path class="gone" d="([^"]*)"', text)
    assert drawn.count("M") == lost
    assert f"{lost} pairs pruned" in text


def test_a_large_model_stays_readable() -> None:
    text = render(report_data.report(sites=48, heads=24, frames=60, timesteps=50), Media())
    assert text.count("24 more sites") == 2
    assert "50 timesteps are pooled into 40 columns" in text
    assert 'viewBox="0 0 41.35 40"' in text
    assert "60 frames are pooled into 40" in text
    assert len(text) < 3_000_000


def test_pairs_too_many_to_draw_are_counted() -> None:
    text = render(report_data.report(sites=1, frames=45, granularity="frame-pair"), Media())
    assert 'class="gone" d=' not in text
    lost = sum((key + query) % 3 == 0 and key != query for key in range(45) for query in range(45))
    assert f"{lost} pairs pruned" in text


def test_a_site_says_what_took_its_place() -> None:
    data = report_data.report(sites=2, heads=2)
    assert "1 of 2 pooled:2:1" in render(data, Media())
    data["stages"][0]["sites"]["transformer_blocks.0.attn1"]["pruned_heads"] = [0, 1]
    assert render(data, Media()).count('<span class="chip gone">pooled:2:1</span>') == 2


def test_cells_of_one_colour_are_one_shape() -> None:
    drawn = Grid.of([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]], Scale(0.0, 1.0), "title")
    assert drawn.shapes == [(0, "M0 0h2v1h-2zM0 1h1v1h-1z"), (10, "M2 0h1v1h-1zM1 1h2v1h-2z")]
    assert (drawn.width, drawn.rows) == (3, 2)


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 has it."""
    digits = colour * 2 if len(colour) == 3 else colour
    parts = [int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_numbers_stand_out_on_every_colour(scheme: str) -> None:
    style = (resources.files("f3prune.report") / "report.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    colours = dict(re.findall(r"--(\w+): #(\w+);", light if scheme == "light" else dark))
    fixed = dict.fromkeys((6, 7), re.findall(r"\.b7\) \{ color: #(\w+);", style)[0])
    for level in range(LEVELS):
        text = fixed.get(level) or colours["low" if level < 6 else "high"]
        darker, lighter = sorted((luminance(text), luminance(colours[f"q{level}"])))
        assert (lighter + 0.05) / (darker + 0.05) >= 4


def test_scales_survive_equal_and_infinite_values() -> None:
    assert Scale.of([[2.0, 2.0]]).level(2.0) == 0
    assert Scale.of([[0.0, float("inf"), 4.0]]).most == 4.0
    assert Scale(0.0, 4.0, power=0.5).level(1.0) == 5
    assert Scale(0.0, 4.0, power=0.5).value(0.5) == 1.0
    assert bins(7, 3) == [(0, 2), (2, 4), (4, 7)]
    assert bins(2, 5) == [(0, 1), (1, 2)]


def test_axes_have_round_ticks() -> None:
    assert [text for _, text in Axis("", 0.93, 1.61).ticks()] == ["1.0", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6"]
    assert [text for _, text in Axis.decades("", [2e-7, 0.3]).ticks()][:2] == ["10⁻⁷", "10⁻⁵"]
    flipped = Axis.around("", [0.0, 10.0], flipped=True)
    assert flipped.share(0.0) > flipped.share(10.0)
    assert Axis.around("", [3.0]).ticks()
    assert Axis.around("", [0.0]).ticks()
