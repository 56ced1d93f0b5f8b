"""The check: what pruning cost and what export cost, each apart from the other.

Two stages, both on inputs captured from a denoising loop. *Pruning*: dense against pruned, PyTorch both; this is the
price of the chosen ratio and has no bound unless one is given. *Export*: pruned PyTorch against the engine; this should
be rounding alone and is bounded. Teacher-forced means that each step gets the reference's inputs, so one step's error
does not feed the next; free-running means that each denoiser made its own video, compared at the end.
"""

from __future__ import annotations

from f3prune.core.parity import ParityNumbers, parity
from f3prune.engines.check._compare import compare, teacher_forced
from f3prune.engines.check._coupling import Coupling, coupling
from f3prune.engines.check._report import CheckBounds, CheckReport, Comparison, StepParity

__all__ = [
    "CheckBounds",
    "CheckReport",
    "Comparison",
    "Coupling",
    "ParityNumbers",
    "StepParity",
    "compare",
    "coupling",
    "parity",
    "teacher_forced",
]
