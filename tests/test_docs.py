"""What the pages name exists: paths, modules, functions, commands and their options, make targets, links, versions.

Every check is a function from a page's text to complaints, so that a page with a mistake can show that it is found.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from markdown.extensions.toc import slugify

from f3prune.cli.main import cli

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "examples" / "README.md"]
FOLDERS = "f3prune|calibration|exporter|engines|zoo_training|examples|tests|benchmarks|docs"
PATH = re.compile(rf"(?:{FOLDERS})/[\w./*-]*")
MODULE = re.compile(r"\bf3prune(?:\.[A-Za-z_]\w*)+")
DEFINED = re.compile(r"`([A-Za-z_][\w.]*)`\s+\(`((?:" + FOLDERS + r")/[\w./]*)`\)")
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"^    .*$", re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")


def code_of(text: str) -> Iterator[str]:
    """Lines of code blocks, and code within lines."""
    for block in FENCED.findall(text):
        yield from block.splitlines()[1:-1]
    text = FENCED.sub("", text)
    yield from (line.strip() for line in INDENTED.findall(text))
    yield from INLINE.findall(text)


def paths_that_are_missing(text: str, page: Path) -> list[str]:
    """Paths of the repository in code."""
    del page
    named = {path.rstrip(".") for code in code_of(text) for path in re.findall(rf"(?<![\w/.:]){PATH.pattern}", code)}
    return sorted(path for path in named if not any(ROOT.glob(path.rstrip("/"))))


def modules_that_are_missing(text: str, page: Path) -> list[str]:
    """Dotted names that begin with the package's."""
    del page
    return sorted({name for code in code_of(text) for name in MODULE.findall(code) if not _resolves(name)})


def _resolves(name: str) -> bool:
    found: Any = importlib.import_module("f3prune")
    parts = name.split(".")
    for number, part in enumerate(parts[1:], start=2):
        if not hasattr(found, part):
            try:
                found = importlib.import_module(".".join(parts[:number]))
                continue
            except ModuleNotFoundError:
                return part == "__all__"
        found = getattr(found, part)
    return True


def definitions_that_are_missing(text: str, page: Path) -> list[str]:
    """Names that a page places in a file or a folder: ```name` (`path`)``."""
    del page
    return sorted(f"{name} in {place}" for name, place in DEFINED.findall(text) if not _defines(ROOT / place, name))


def _defines(place: Path, name: str) -> bool:
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    return any(file.is_file() and _has(ast.parse(file.read_text(encoding="utf-8")), name) for file in files)


def _has(tree: ast.AST, name: str) -> bool:
    first, _, rest = name.partition(".")
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == first:
            return not rest or _has(node, rest)
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == first for t in node.targets):
            return not rest
    return False


def commands_that_are_missing(text: str, page: Path) -> list[str]:
    """Commands of ``f3prune``, and options that they do not take."""
    del page
    return sorted({complaint for code in code_of(text) for complaint in _wrong_commands(code)})


def _wrong_commands(code: str) -> Iterator[str]:
    for line in re.findall(r"(?:^|\s)f3prune ([a-z][^#|]*)", code):
        words = shlex.split(line.replace("…", " "), posix=True) if line.count("'") % 2 == 0 else line.split()
        command: click.Command = cli
        while words and isinstance(command, click.Group) and not words[0].startswith("-"):
            inner = command.commands.get(words[0]) or command.get_command(click.Context(command), words[0])
            if inner is None:
                yield f"f3prune {line.strip()}: no command {words[0]}"
                return
            command = inner
            words = words[1:]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
        known |= {option for parameter in command.params for option in parameter.secondary_opts}
        for word in words:
            if word.startswith("--") and word.partition("=")[0] not in known:
                yield f"f3prune {line.strip()}: no option {word}"


def targets_that_are_missing(text: str, page: Path) -> list[str]:
    """Targets of ``make``."""
    del page
    known = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {target for code in code_of(text) for target in re.findall(r"(?:^|\s)make ([a-z][\w-]*)", code)}
    return sorted(named - known)


def links_that_lead_nowhere(text: str, page: Path) -> list[str]:
    """Links to files, and to headings as both GitHub and the site name them."""
    wrong = []
    for target, anchor in LINK.findall(FENCED.sub("", text)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in _anchors(file)):
            wrong.append(f"{target}#{anchor}" if anchor else target)
    return sorted(set(wrong))


def _anchors(file: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", FENCED.sub("", file.read_text(encoding="utf-8")), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", title) for title in titles]
    on_github = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in plain}
    return on_github & {slugify(title, "-") for title in plain}


Check = Callable[[str, Path], list[str]]
CHECKS: dict[Check, str] = {
    paths_that_are_missing: "see `calibration/nothing.py`",
    modules_that_are_missing: "see `f3prune.engines.nothing`",
    definitions_that_are_missing: "see `nothing` (`calibration/masks.py`)",
    commands_that_are_missing: "    f3prune prune run --alpha 0.5 --nothing   # a comment",
    targets_that_are_missing: "run `make nothing`",
    links_that_lead_nowhere: "[here](README.md#nothing)",
}
"""Every check, and a text that it must complain about."""


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_mistake_is_found(check: Check) -> None:
    assert check(CHECKS[check], ROOT / "page.md")


def test_an_unknown_command_is_found() -> None:
    assert commands_that_are_missing("`f3prune nothing run`", ROOT / "page.md")
    assert commands_that_are_missing("`f3prune convert nothing`", ROOT / "page.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_what_a_page_names_exists(check: Check, page: Path) -> None:
    assert check(page.read_text(encoding="utf-8"), page) == []


def test_a_walk_names_files_and_at_most_ten() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    walks = re.findall(r"^## How (.*?)(?=^## )", text, re.DOTALL | re.MULTILINE)
    assert len(walks) == 3
    for walk in walks:
        assert 3 <= len({place for _, place in DEFINED.findall(walk)}) <= 10
        assert len({path for path in INLINE.findall(walk) if PATH.fullmatch(path)}) <= 10


def test_formats_are_those_of_the_code() -> None:
    """Versions in the table of files, and where the code keeps each."""
    from f3prune.bench.contest.contest import VERSION as CONTENDERS
    from f3prune.bench.speed import VERSION as SPEED
    from f3prune.calibration import calibration_file, masks, pruned_model, refitting, score_table
    from f3prune.core import captured_calls, run_directory
    from f3prune.engines import CheckReport, EngineRecord, StepReuse
    from f3prune.quality import evaluate, sweep, video_store
    from f3prune.report import build
    from f3prune.steps import scores

    def default(record: Any) -> Any:
        return record.__dataclass_fields__["version"].default

    expected = {
        "manifest.json": run_directory.FORMAT,
        "aas.safetensors": calibration_file.FORMAT,
        "calls.safetensors": captured_calls.FORMAT,
        "scores/NAME/scores.safetensors": score_table.FORMAT,
        "refit/HASH/refit.safetensors": refitting.FORMAT,
        "scores/auto-HASH/choices.json": scores.CHOICES_FORMAT,
        "masks.json": masks.VERSION,
        "pruned/pruning.json": pruned_model.VERSION,
        "engine/engine.json": default(EngineRecord),
        "reuse.json": StepReuse((2.0, 1.0), ()).to_json()["version"],
        "check.json": default(CheckReport),
        "bench.json": SPEED,
        "contenders.json": CONTENDERS,
        "evaluation.json": evaluate.VERSION,
        "sweep.json": sweep.VERSION,
        "videos/": video_store.VERSION,
        "report.json": build.VERSION,
    }
    table = (ROOT / "docs" / "reference" / "files.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)`[^|]*\| (\d+) \|", table, re.MULTILINE)
    assert dict(rows) == {name: str(version) for name, version in expected.items()}
