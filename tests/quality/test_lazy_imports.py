"""A command line can import every module of the evaluation without waiting for heavy packages."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
import f3prune.quality.compare, f3prune.quality.datasets, f3prune.quality.metrics
heavy = {"torch", "cv2", "av", "torchmetrics", "transformers", "scipy", "sklearn", "safetensors"}
print(",".join(sorted(heavy & set(sys.modules))))
"""


def test_nothing_heavy_is_imported():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
