"""Pages in a headless Chromium, where one is installed."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")

QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=5000",
)
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND"


def chromium(folder: Path, page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """One page load with a profile of its own under ``folder``."""
    assert BROWSER is not None
    command = [BROWSER, *QUIET, f"--user-data-dir={folder / 'profile'}", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def dumped(folder: Path, page: Path, *options: str) -> str:
    """The document after its scripts have run."""
    return chromium(folder, page, "--dump-dom", *options).stdout


def framed(folder: Path, text: str, width: int, height: int = 900, script: str = "", scripts: bool = True) -> Path:
    """A page that shows ``text`` in a frame ``width`` wide: a window itself cannot be as narrow as a telephone.

    ``script`` may use ``page``, the document in the frame, and is to call ``done`` with a JSON value.
    Without ``scripts`` none in the frame runs.
    """
    sandbox = "" if scripts else ' sandbox="allow-same-origin"'
    file = folder / f"frame-{width}.html"
    file.write_text(
        f'<!doctype html><body style="margin:0"><iframe{sandbox} style="border:0;width:{width}px;height:{height}px" '
        f'srcdoc="{html.escape(text, quote=True)}"></iframe><pre></pre><script>'
        f"const done = (value) => {{ document.querySelector('pre').textContent = JSON.stringify(value); }};"
        f"onload = () => {{ const page = document.querySelector('iframe').contentDocument; {script} }};</script>",
        encoding="utf-8",
    )
    return file


def measured(folder: Path, text: str, width: int, script: str, scripts: bool = True) -> Any:
    """What ``script`` of ``framed`` found."""
    shown = dumped(folder, framed(folder, text, width, script=script, scripts=scripts))
    found = re.search(r"<pre>(.*?)</pre>", shown, re.DOTALL)
    assert found is not None
    return json.loads(html.unescape(found.group(1)))
