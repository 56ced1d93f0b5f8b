"""Pages of the site that stand elsewhere or are made from the code, and links that leave ``docs/``."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/README.md": "examples.md",
    "f3prune/zoo/digits/pipeline/README.md": "zoo/digits.md",
    "f3prune/zoo/digits_latte/pipeline/README.md": "zoo/digits-latte.md",
    "f3prune/zoo/digits_animatediff/pipeline/README.md": "zoo/digits-animatediff.md",
    "f3prune/zoo/digits_cogvideo/pipeline/README.md": "zoo/digits-cogvideo.md",
}
"""File of the repository → page of the site."""
LINK = re.compile(r"(!?\[[^\]]*\])\(([^)#\s]*)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for source, page in ELSEWHERE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        if text.startswith("---\n"):
            text = text.split("---\n", 2)[2]
        if source == "examples/README.md":
            text += "".join(_script(path) for path in sorted((ROOT / "examples").glob("*.py")))
        files.append(File.generated(config, page, content=_relinked(text, source, page)))
    files.append(File.generated(config, "reference/command-line.md", content=_command_line()))
    files.append(File.generated(config, "reference/python.md", content=_python()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links out of ``docs/`` to where the page is, or name the file."""
    place = page.file.src_uri
    return markdown if place in ELSEWHERE.values() else _relinked(markdown, f"docs/{place}", place)


def _relinked(text: str, source: str, page: str) -> str:
    """Links of a file of the repository, as the page that it becomes needs them."""

    def link(found: re.Match[str]) -> str:
        label, target, anchor = found[1], found[2], found[3] or ""
        if not target or "://" in target or target.startswith("mailto:"):
            return found[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        place = ELSEWHERE.get(file) or (file.removeprefix("docs/") if file.startswith("docs/") else None)
        if posixpath.dirname(file) == "examples" and file.endswith(".py"):
            place, anchor = "examples.md", f"#{posixpath.basename(file).replace('.', '')}"
        if place is None:
            return f"{label[1:-1]} (`{file}`)"
        return f"{label}({posixpath.relpath(place, posixpath.dirname(page) or '.')}{anchor})"

    return LINK.sub(link, text)


def _script(path: Path) -> str:
    return f"\n## {path.name}\n\n```python\n{path.read_text(encoding='utf-8')}```\n"


def _command_line() -> str:
    from f3prune.cli.main import cli

    context = click.Context(cli, info_name="f3prune", max_content_width=110, terminal_width=110)
    lines = ["# Command line", "", "```text", cli.get_help(context), "```", ""]
    for name in cli.list_commands(context):
        command: Any = cli.get_command(context, name)
        inner = click.Context(command, info_name=name, parent=context, max_content_width=110, terminal_width=110)
        lines += [f"## f3prune {name}", "", "```text", command.get_help(inner), "```", ""]
    return "\n".join(lines)


def _python() -> str:
    import f3prune

    lines = ["# Python", "", "Names of `f3prune`; every one loads when it is first used.", ""]
    for name in f3prune.__all__:
        if name not in {"__version__", "zoo"}:
            lines += [f"::: f3prune.{name}", ""]
    return "\n".join(lines)
