"""The site is built without a warning, asks nothing of any network, and knows every command and public name."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import f3prune
from f3prune.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


class Assets(HTMLParser):
    """What a page fetches when it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in {"script", "img", "iframe", "video", "source"}:
            self.found.append(given.get("src") or "")
        if tag == "link" and given.get("rel") in {"stylesheet", "icon", "preload", "modulepreload", "preconnect"}:
            self.found.append(given.get("href") or "")


def test_pages_fetch_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 70
    for page in pages:
        assets = Assets()
        assets.feed(page.read_text(encoding="utf-8"))
        assert assets.found
        assert not [asset for asset in assets.found if asset.startswith(("http:", "https:", "//"))], page


def test_every_command_and_public_name_has_its_entry(site: Path) -> None:
    commands = (site / "reference" / "command-line" / "index.html").read_text(encoding="utf-8")
    names = (site / "reference" / "python" / "index.html").read_text(encoding="utf-8")
    for command in COMMANDS:
        assert f"f3prune {command}" in commands
    for name in set(f3prune.__all__) - {"__version__", "zoo"}:
        assert name in names
