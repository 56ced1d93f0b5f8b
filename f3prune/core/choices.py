"""The values that options take, for click and for checks, read without importing torch.

Scores and replacements are files of a folder each, named after the value they stand for: adding one is adding a file.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

GRANULARITIES = ("layer", "head", "frame-pair")
AGGREGATES = ("timesteps", "layers")
BACKENDS = ("onnxruntime", "tensorrt-rtx", "tensorrt")
DTYPES = ("fp32", "fp16", "bf16")
DYNAMIC = ("batch", "text")
DEFAULT = "default"
"""Of a mode or score: what suits the model and the unit."""
_PACKAGE = Path(__file__).resolve().parents[1]


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
