"""Help is quick because nothing heavy is imported for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from f3prune.cli.main import COMMANDS

HEAVY = (
    "torch",
    "diffusers",
    "transformers",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "tensorrt",
    "tensorrt_rtx",
    "polygraphy",
    "jinja2",
    "matplotlib",
    "numpy",
)


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


CALLS = [(), *((command,) for command in COMMANDS), ("convert", "cogvideo")]


@pytest.mark.parametrize("arguments", CALLS, ids=lambda a: "-".join(a) or "top")
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom f3prune.cli.main import main\n"
        "try: main([*sys.argv[1:], '--help'])\n"
        f"finally: print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    done = python(code, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "[]\n"
    assert done.stdout.startswith("Usage: f3prune")
    for command in COMMANDS if not arguments else ():
        assert command in done.stdout


def test_version() -> None:
    done = python("from f3prune.cli.main import main; main(['--version'])")
    assert done.stdout == "f3prune, version 0.1.0\n"


def test_no_arguments_show_the_help() -> None:
    done = python("from f3prune.cli.main import main; main([])")
    assert done.returncode == 2
    assert "Usage: f3prune" in done.stdout + done.stderr


def test_families_lists_every_family_without_torch() -> None:
    code = "from f3prune.cli.main import main\ntry: main(['families'])\nfinally: assert 'torch' not in sys.modules"
    done = python(f"import sys\n{code}")
    assert done.returncode == 0, done.stderr
    for word in ("cogvideox", "WanTransformer3DModel", "spatiotemporal", "animatediff", "SanaVideoTransformer3DModel"):
        assert word in done.stdout
