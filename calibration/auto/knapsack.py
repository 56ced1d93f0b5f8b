"""The multiple-choice knapsack: of every group at most one item, the least loss for a wanted saving."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

BINS = 600
"""Steps in which savings are counted; each is rounded down to one, so that a solution never saves less than wanted."""


@dataclass(frozen=True)
class Item:
    """Something a group can choose.

    Attributes:
        name: what it is.
        loss: what choosing it costs, at least 0.
        saved: what it saves.
    """

    name: Hashable
    loss: float
    saved: float


def least_losses(groups: Mapping[str, Sequence[Item]], wanted: float, keep: int = 8) -> list[dict[str, Item]]:
    """The ``keep`` choices of least summed loss that save at least ``wanted``, the best first.

    Dynamic programming over groups and savings (Kellerer, Pferschy and Pisinger, Knapsack Problems, 2004, §11.5), with
    the ``keep`` best of every state. Exact up to the rounding of savings.

    Args:
        groups: group → its items; a group may choose none of them, at no loss and no saving.
        wanted: the saving.
        keep: how many choices.

    Returns:
        Group → chosen item, groups that choose none left out; an empty list where so much cannot be saved.

    Examples:
        >>> groups = {"a": [Item("local", 0.4, 3.0), Item("pooled", 0.1, 2.0)], "b": [Item("local", 0.2, 3.0)]}
        >>> [{group: item.name for group, item in chosen.items()} for chosen in least_losses(groups, 3.0, keep=2)]
        [{'b': 'local'}, {'a': 'pooled', 'b': 'local'}]
    """
    if wanted <= 0:
        return [{}]
    unit = wanted / BINS
    # Saving in units, at most what is wanted → the best (loss, number of the choice, items by group).
    states: dict[int, list[tuple[float, int, tuple[tuple[str, Item], ...]]]] = {0: [(0.0, 0, ())]}
    number = itertools.count(1)
    for group, items in groups.items():
        following: dict[int, list[tuple[float, int, tuple[tuple[str, Item], ...]]]] = {
            at: list(kept) for at, kept in states.items()
        }
        for item in items:
            gain = math.floor(item.saved / unit * (1 + 1e-12))
            if gain > 0 and math.isfinite(item.loss):
                for at, kept in states.items():
                    following.setdefault(min(BINS, at + gain), []).extend(
                        (loss + item.loss, next(number), (*chosen, (group, item))) for loss, _, chosen in kept
                    )
        states = {at: sorted(found)[:keep] for at, found in following.items()}
    return [dict(chosen) for _, _, chosen in states.get(BINS, [])]
