"""A small video feature network for Fréchet distances between sets of the zoo's clips."""

from __future__ import annotations

from pathlib import Path

from f3prune.core.errors import ArtifactError, reason_of
from f3prune.zoo.features.network import FeatureNetwork

__all__ = ["WEIGHTS", "FeatureNetwork", "load"]

WEIGHTS = Path(__file__).parent / "weights" / "model.safetensors"
"""The weights that come with the package."""


def load(weights: Path = WEIGHTS) -> FeatureNetwork:
    """The trained network, ready to use.

    Raises:
        ArtifactError: the weights are missing, damaged, or of another network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    network = FeatureNetwork()
    try:
        network.load_state_dict(load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = reason_of(error, 120)
        raise ArtifactError(f"the feature network's weights {weights} cannot be read ({reason})") from error
    return network.eval().requires_grad_(False)
