"""What takes a pruned unit's place, one file per replacement; a mode is the name of one."""

from f3prune.calibration.replacements._registry import (
    Place,
    Replacement,
    mode_names,
    name_of,
    register,
    replacement_of,
)
from f3prune.calibration.replacements.local import Local

__all__ = ["Local", "Place", "Replacement", "mode_names", "name_of", "register", "replacement_of"]
