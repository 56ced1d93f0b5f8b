"""Prompts come out of their file as they went in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from f3prune.pipelines.prompts import BUILT_IN, Prompt, prompts_digest, read_prompts, take

texts = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp", "Zs")), min_size=1, max_size=20
)


@settings(max_examples=40, deadline=None)
@given(lines=st.lists(texts, min_size=1, max_size=5))
def test_text_files_round_trip(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.mktemp("p") / "p.txt"
    path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    # A byte-order mark in front is no part of the first prompt.
    assert [prompt.text for prompt in read_prompts(path)] == [lines[0].removeprefix("\ufeff"), *lines[1:]]


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(texts, st.none() | texts), min_size=1, max_size=5))
def test_jsonl_files_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str | None]]) -> None:
    prompts = [Prompt(text, negative=negative) for text, negative in rows]
    path = tmp_path_factory.mktemp("p") / "p.jsonl"
    path.write_text("\n".join(json.dumps(prompt.to_json()) for prompt in prompts), encoding="utf-8")
    assert read_prompts(path) == prompts
    assert [Prompt.from_json(prompt.to_json()) for prompt in prompts] == prompts


def test_images_are_found_beside_the_file_and_hashed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    path = tmp_path / "p.jsonl"
    path.write_text('{"image": "a.png"}')
    prompts = read_prompts(path)
    assert prompts == [Prompt("", (tmp_path / "a.png").resolve())]
    before = prompts_digest(prompts)
    (tmp_path / "a.png").write_bytes(b"2")
    assert prompts_digest(prompts) != before


def test_the_first_prompts_are_taken() -> None:
    prompts = [Prompt(text) for text in BUILT_IN]
    assert take(prompts, 2, "list") == prompts[:2]
    assert take(prompts, None, "list") == prompts
    assert len(set(BUILT_IN)) == len(BUILT_IN) == 8
