"""Weight magnitude, the classic criterion of pruning: how much a head's value and output projections can say."""

from __future__ import annotations

import torch
from torch import nn

from f3prune.calibration.bake.surgery import head_channels, linear
from f3prune.calibration.calibration_file import Calibration
from f3prune.calibration.score_table import Granularity, ScoreTable
from f3prune.calibration.scores._registry import Measurement, Score, register
from f3prune.core.errors import InputError
from f3prune.families import Site, family_of


def magnitude_scores(denoiser: nn.Module, calibration: Calibration, granularity: Granularity) -> ScoreTable:
    """Frobenius norm of ``W_o[:, h] W_v[h]`` of every head, the mean of them for a layer.

    Args:
        denoiser: the dense denoiser.
        calibration: names the sites.
        granularity: ``layer`` or ``head``.

    Raises:
        InputError: frame pairs share their weights.
    """
    if granularity == "frame-pair":
        raise InputError(
            "score magnitude looks at weights, which all frame pairs share: use `granularity='layer'` or `'head'`, or "
            "`score='aas'`"
        )
    sites = {site.name: site for site in family_of(denoiser).find_sites(denoiser, "all")}
    values = {}
    for name in calibration.sites:
        norms = _norms(denoiser, sites[name])
        values[name] = norms.mean()[None] if granularity == "layer" else norms[None]
    return ScoreTable(granularity, calibration.timesteps[:1], values)


@register("magnitude")
class MagnitudeScore(Score):
    """The classic criterion: small weights first."""

    title = "weight magnitude"
    needs_model = True
    granularities = ("layer", "head")

    def measure(self, measurement: Measurement) -> ScoreTable:
        """See ``magnitude_scores``."""
        return magnitude_scores(measurement.denoiser(), measurement.calibration, measurement.config.granularity)

    def refusal(self, granularity: Granularity) -> str | None:
        """Frame pairs share their weights."""
        if granularity != "frame-pair":
            return None
        return (
            "score magnitude looks at weights, which all frame pairs share: use `granularity='layer'` or `'head'`, or "
            "`score='aas'`"
        )


def _norms(denoiser: nn.Module, site: Site) -> torch.Tensor:
    """Norm of every head's fused projection: ``h`` float64."""
    value = linear(denoiser, site.value[0]).weight.detach().double().cpu()
    output_name, start = site.outputs[0]
    output = linear(denoiser, output_name).weight.detach().double().cpu()
    norms = []
    for head in range(site.heads):
        channels = head_channels([head], site.head_dim)
        # |A B|² = trace(AᵀA BBᵀ): the product itself would be as large as the model is wide.
        left, right = output[:, channels + start], value[channels]
        norms.append(((left.T @ left) * (right @ right.T)).sum().clamp(min=0).sqrt())
    return torch.stack(norms)
