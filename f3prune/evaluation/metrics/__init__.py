"""Metrics of videos; see ``INFO``."""

from f3prune.evaluation.metrics._frechet import frechet_distance, frechet_from_features
from f3prune.evaluation.metrics._info import INFO, MetricInfo

__all__ = ["INFO", "MetricInfo", "frechet_distance", "frechet_from_features"]
