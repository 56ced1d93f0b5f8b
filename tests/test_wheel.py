"""What a user installs: a wheel that adds one name, and works from there without the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from f3prune.testing import tiny_denoiser

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


def tracked() -> list[str]:
    """The files that git tracks, from the root on."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("the wheel is built from what git tracks, and this is no checkout")
    return [name for name in listed.stdout.split("\0") if name]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel alone was installed."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in tracked():
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
    packaged = {name for name in tracked() if name.startswith("f3prune/") and (ROOT / name).is_file()}
    assert packaged
    assert not {name for name in packaged if not (site / name).is_file()}
    # The zoo's models are among these files; a whole run of a tiny denoiser shows that the code is there too.
    found = ("calibrate", "zoo:digits-latte", "-o", "zoo", "--steps", "1", "--num-prompts", "1")
    assert "4 sites of latte" in python(site, "-m", "f3prune", *found, where=tmp_path)
    tiny_denoiser("latte").save_config(tmp_path / "tiny")
    made = ("run", "tiny", "-o", "demo", "--random-weights", "--alpha", "0.5", "--steps", "1", "--score", "aas")
    assert "1 of 2 sites pruned" in python(site, "-m", "f3prune", *made, where=tmp_path)
    assert (tmp_path / "demo" / "report.html").is_file()
