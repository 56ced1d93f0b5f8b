"""The scripts for a GPU machine: what they compute is right, and a visit rehearses on the CPU from end to end."""

from __future__ import annotations

import dataclasses
import importlib
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.exports import exported

SCRIPTS = Path(__file__).parents[2] / "benchmarks" / "gpu"


@pytest.fixture(scope="module")
def scripts():
    """The folder of the scripts is theirs alone to import from."""
    sys.path.insert(0, str(SCRIPTS))
    import _attention
    import _stand_ins
    import _visit

    yield {"attention": _attention, "stand_ins": _stand_ins, "visit": _visit}
    sys.path.remove(str(SCRIPTS))


def make_call(scripts: dict[str, Any], text: int, after: bool, frames: int = 5) -> Any:
    call = scripts["attention"].Shape(2, 3, 8, frames, (4, 6), text, ()).call("cpu", torch.float32)
    return dataclasses.replace(call, text_before=0, text_after=text) if after else call


@pytest.mark.parametrize(("text", "after"), [(0, False), (5, False), (5, True)])
@pytest.mark.parametrize("form", ["folded", "split"])
@pytest.mark.parametrize(
    ("window", "pool"), [(1, None), (2, None), (0, (2, 2)), (0, (3, 4)), (1, (2, 3)), (2, (4, 6)), (4, (2, 2))]
)
def test_a_stand_in_is_dense_attention_under_a_mask(scripts, window, pool, form, text, after):
    """Grids that patches do not fill (4 by 3), a window as long as the clip, text on both sides."""
    call = make_call(scripts, text, after)
    handler = scripts["stand_ins"].Near((4, 6), window, pool, form)
    queries = torch.arange(call.video.start, call.video.stop)
    output = handler(call)
    assert output.shape == call.query.shape
    expected = scripts["stand_ins"].exact_rows(handler, call, queries)
    torch.testing.assert_close(output[:, :, call.video], expected, atol=1e-5, rtol=1e-4)
    if text:
        words = slice(call.video.stop, None) if after else slice(0, text)
        torch.testing.assert_close(output[:, :, words], call.dense()[:, :, words], atol=1e-5, rtol=1e-4)


def test_frame_local_without_copies_is_the_baked_one(scripts):
    from f3prune.calibration.bake.attention import frame_local

    for text, after in ((0, False), (5, False), (5, True)):
        call = make_call(scripts, text, after)
        split = scripts["stand_ins"].Near((4, 6), form="split", text_sees="text")
        torch.testing.assert_close(split(call), frame_local(call), atol=1e-5, rtol=1e-4)


def test_a_mean_map_is_attention_with_constant_weights(scripts):
    generator = torch.Generator().manual_seed(0)
    value, output = torch.nn.Linear(6, 8), torch.nn.Linear(8, 6)
    maps = torch.rand(2, 3, 3, generator=generator)
    states = torch.randn(4, 3, 6, generator=generator)
    heads = value(states).unflatten(-1, (2, 4))
    mixed = torch.stack([torch.einsum("ij,bjd->bid", maps[h], heads[:, :, h]) for h in range(2)], dim=2)
    module = scripts["stand_ins"].MeanMap(value, output, maps)
    torch.testing.assert_close(module(states), output(mixed.flatten(2)))


def test_the_number_of_keys_follows_from_grid_window_and_pool(scripts):
    """CogVideoX-2b's 13 frames of 30 by 45 tokens after 226 of text: by hand."""
    near = scripts["stand_ins"].Near
    assert near((30, 45)).keys(13, 226) == 13 * (1350 + 226)
    assert near((30, 45), 1).keys(13, 226) == (11 * 3 + 2 * 2) * 1350 + 13 * 226
    assert near((30, 45), 0, (4, 4)).keys(13, 226) == 13 * (1350 + 12 * 8 * 12 + 226)


def test_a_line_that_was_cut_short_is_left_out(scripts, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"part": "card", "name": "a"}\n{"part": "card", "na', encoding="utf-8")
    assert scripts["visit"].read_rows(rows) == [{"part": "card", "name": "a"}]


@pytest.mark.slow(reason="every measurement of a visit, tiny")
def test_visit_a_rehearses_on_the_cpu(scripts, tmp_path, monkeypatch):
    """The script runs one part and writes the file; the others, which it would run in the same way, run here."""
    parts = ("engines", "engine_speed", "cogvideox", "animatediff")
    monkeypatch.setattr(importlib.import_module("_engine_speed"), "ALPHAS", (0.0, 1.0))
    monkeypatch.setattr(importlib.import_module("_engines"), "REHEARSED", ("cogvideox",))
    for dtype in ("fp32", "fp16"):
        dense = exported("cogvideox", dtype=dtype).result.path.parent
        shutil.copytree(dense, tmp_path / "graphs" / f"cogvideox-{dtype}-dense")
    planned = importlib.import_module("visit_a").PARTS
    for part in parts:
        rows = tmp_path / scripts["visit"].ROWS
        visit = scripts["visit"].Visit(part, rows, time.time() + 600, True, tmp_path / "graphs")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            planned[part].run(visit)
    command = [sys.executable, str(SCRIPTS / "visit_a.py"), "--rehearse", "--parts", "card", "--out", str(tmp_path)]
    command += ["--graphs", str(tmp_path / "graphs"), "--json", str(tmp_path / "all.json"), "--seconds", "600"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    rows = scripts["visit"].read_rows(tmp_path / "rows.jsonl")
    assert [row for row in rows if "error" in row] == []
    found = scripts["visit"].by_part(rows)
    assert [(row["name"], row["ended"]) for row in found.pop("parts")] == [("card", "done")]
    assert sorted(found) == sorted(("card", *parts))
    engines = {row["name"]: row for row in found["engines"]}
    assert engines["graphs"]["worst_rel_l2"] < 1e-5
    assert engines["graphs"]["results_kept"] is True
    assert engines["stages"]["worst_rel_l2"] < 1e-5
    assert engines["two sessions"]["failures"] == []
    assert engines["pipeline"]["rel_l2"] < 1e-4
    assert engines["cogvideo"]["same_tokens"] is True
    ratios = [row for row in found["animatediff"] if "ratio" in row]
    assert {row["name"].split()[0] for row in ratios} == {"dense", "static", "local", "drop"}
    assert (tmp_path / "all.json").is_file()
