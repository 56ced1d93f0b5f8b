"""Mode ``auto``: for every site the replacement, or none, that loses least for what is to be saved."""

from f3prune.calibration.auto.assign import Choices, Offer, assign, candidates, everywhere, modes_to_compare
from f3prune.calibration.auto.products import Products, count_pruned

__all__ = [
    "Choices",
    "Offer",
    "Products",
    "assign",
    "candidates",
    "count_pruned",
    "everywhere",
    "modes_to_compare",
]
