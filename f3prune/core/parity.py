"""How far two results are apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from f3prune.core.errors import InputError

ROUNDING = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1}
"""Greatest relative L2 by which an exported graph or an engine may differ from PyTorch, by its dtype."""


@dataclass(frozen=True)
class ParityNumbers:
    """Distance of a candidate from a reference.

    The three distances are over the elements that are finite in both; the counts say how many are not.

    Attributes:
        max_abs: largest absolute difference.
        rel_l2: ``‖candidate - reference‖ / ‖reference‖``; 0 for two zero tensors, infinite for a zero reference.
        cosine: of the angle between the two; 1 for two zero tensors, 0 where only one is 0.
        elements: how many were compared, finite or not.
        reference_nan, reference_inf, candidate_nan, candidate_inf: how many elements of each are not finite.
    """

    max_abs: float
    rel_l2: float
    cosine: float
    elements: int
    reference_nan: int = 0
    reference_inf: int = 0
    candidate_nan: int = 0
    candidate_inf: int = 0

    @property
    def badness(self) -> tuple[bool, float]:
        """Orders distances: what is not finite is worse than anything else, then the relative L2 counts."""
        return bool(self.non_finite), 0.0 if math.isnan(self.rel_l2) else self.rel_l2

    @property
    def non_finite(self) -> str:
        """What is not finite, in words, e.g. ``candidate has 3 NaN``; empty where all is finite."""
        counts = {
            "reference has {} NaN": self.reference_nan,
            "reference has {} Inf": self.reference_inf,
            "candidate has {} NaN": self.candidate_nan,
            "candidate has {} Inf": self.candidate_inf,
        }
        return ", ".join(text.format(count) for text, count in counts.items() if count)


def parity(reference: torch.Tensor, candidate: torch.Tensor) -> ParityNumbers:
    """Compare two tensors of one shape, in float64.

    Raises:
        InputError: the shapes differ.
    """
    if reference.shape != candidate.shape:
        raise InputError(
            f"cannot compare a candidate of shape {list(candidate.shape)} "
            f"with a reference of shape {list(reference.shape)}"
        )
    a = reference.detach().to("cpu", torch.float64).flatten()
    b = candidate.detach().to("cpu", torch.float64).flatten()
    finite = a.isfinite() & b.isfinite()
    counts = {
        "reference_nan": int(a.isnan().sum()),
        "reference_inf": int(a.isinf().sum()),
        "candidate_nan": int(b.isnan().sum()),
        "candidate_inf": int(b.isinf().sum()),
    }
    elements = a.numel()
    a, b = a[finite], b[finite]
    if a.numel() == 0:
        return ParityNumbers(math.nan, math.nan, math.nan, elements, **counts)
    difference = b - a
    norm_a, norm_b = float(a.norm()), float(b.norm())
    distance = float(difference.norm())
    # A reference of zeros leaves nothing to be relative to.
    rel_l2 = distance / norm_a if norm_a > 0 else (math.inf if distance > 0 else 0.0)
    if norm_a > 0 and norm_b > 0:
        cosine = min(1.0, max(-1.0, float(a @ b) / (norm_a * norm_b)))
    else:
        cosine = 1.0 if norm_a == norm_b else 0.0
    return ParityNumbers(float(difference.abs().max()), rel_l2, cosine, elements, **counts)
