"""The values that options take, for click and for checks, read without importing torch.

Scores and replacements are files of a folder each, named after the value they stand for: adding one is adding a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

GRANULARITIES = ("layer", "head", "frame-pair")
AGGREGATES = ("timesteps", "layers")
BACKENDS = ("onnxruntime", "tensorrt-rtx", "tensorrt")
DTYPES = ("fp32", "fp16", "bf16")
OLDEST_BF16_OPSET = 22
TURING = "7.5"
"""Compute capability of GPUs without bfloat16."""
DYNAMIC = ("batch", "text")
OFFLOADS = ("none", "model", "sequential", "layers")
"""Where weights are while models run. ``none``: all on the device. On a GPU: ``model``, one model of the pipeline at a
time (accelerate); ``sequential``, one module at a time (accelerate); ``layers``, a layer ahead of its use, on a stream
of its own (diffusers). Without a GPU: ``layers``, one weight of the denoiser at a time, from its file."""
DEFAULT = "default"
"""Of a mode or score: what suits the model and the unit."""
_PACKAGE = Path(__file__).resolve().parents[1]


def graph_dtype(backend: str, compute_capabilities: Sequence[str] = (), opset: int | None = None) -> str:
    """What a graph is best exported in for what will run it.

    ONNX Runtime's CPU provider computes in fp32. TensorRT fuses attention in half precision alone. Of the two, bf16 has
    the range for attention over any number of keys; Turing and operator sets before 22 do not have it.
    """
    if backend == "onnxruntime":
        return "fp32"
    without_bf16 = TURING in compute_capabilities or (opset is not None and opset < OLDEST_BF16_OPSET)
    return "fp16" if without_bf16 else "bf16"


@cache
def shipped_modes() -> tuple[str, ...]:
    """What can take a pruned unit's place: the modules of ``f3prune.calibration.replacements``."""
    return _modules("calibration/replacements")


@cache
def score_names() -> tuple[str, ...]:
    """What units can be ranked by: the modules of ``f3prune.calibration.scores``."""
    return _modules("calibration/scores")


def _modules(folder: str) -> tuple[str, ...]:
    """Names of the public modules of a package's folder, words joined by hyphens, in alphabetical order."""
    stems = sorted(path.stem for path in (_PACKAGE / folder).glob("*.py") if not path.stem.startswith("_"))
    return tuple(stem.replace("_", "-") for stem in stems)
