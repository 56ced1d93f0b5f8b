"""Denoiser calls that are extrapolated from earlier ones instead of computed, chosen by a measured generation.

Neighbouring denoising steps give nearly the same output (MagCache, arXiv 2506.09045, and TeaCache, arXiv 2411.19108,
rest on it). A call that is skipped gets the line through the last two computed outputs; which calls those are is
decided once, from what a generation was measured to lose.
"""

from __future__ import annotations

from f3prune.engines.step_reuse._choice import candidates, choose
from f3prune.engines.step_reuse._memory import StepMemory
from f3prune.engines.step_reuse._plan import StepReuse, steps_to_skip
from f3prune.engines.step_reuse._recording import Recording, StepRecorder

__all__ = ["Recording", "StepMemory", "StepRecorder", "StepReuse", "candidates", "choose", "steps_to_skip"]
