"""What a user installs: a wheel that adds one name, and works from there without the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECK = """
import pathlib, sys
import f3prune, f3prune.cli.main, f3prune.workflow, f3prune.quality.judging, f3prune.report.build
from f3prune.engines import build_engine
site = pathlib.Path(sys.argv[1])
assert site in pathlib.Path(f3prune.__file__).parents, f3prune.__file__
found = {name.partition(".")[0] for name in sys.modules}
assert not found & {"calibration", "exporter", "engines", "zoo_training"}, found
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel alone was installed."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("the wheel is built from what git tracks, and this is no checkout")
    for name in filter(None, listed.stdout.split("\0")):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(folder), str(source)], check=True)
    (wheel,) = folder.glob("f3prune-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True)
    return folder / "site"


def python(site: Path, *arguments: str, where: Path) -> str:
    """Run Python with the installed package in front of everything else."""
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=where, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow(reason="builds a wheel and a virtual environment")
def test_the_wheel_adds_one_name_and_works(site: Path, tmp_path: Path) -> None:
    names = {path.name for path in site.iterdir() if not path.name.endswith(".dist-info")} - {"bin"}
    assert names == {"f3prune"}
    assert (site / "f3prune" / "py.typed").is_file()
    assert (site / "f3prune" / "calibration" / "bake" / "attention.py").is_file()
    python(site, "-c", CHECK, str(site), where=tmp_path)
    assert python(site, "-m", "f3prune", "--version", where=tmp_path).startswith("f3prune")
    arguments = [
        "run",
        "zoo:digits",
        "-o",
        "demo",
        "--alpha",
        "0.4",
        "--steps",
        "2",
        "--num-prompts",
        "1",
        "--score",
        "aas",
    ]
    shown = python(site, "-m", "f3prune", *arguments, where=tmp_path)
    assert "2 of 6 sites pruned" in shown
    assert (tmp_path / "demo" / "report.html").is_file()
