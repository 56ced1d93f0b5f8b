"""Metrics of videos: ``INFO`` names them, ``build_metrics`` makes them."""

from f3prune.quality.metrics._build import (
    DistanceMetric,
    EachMetric,
    Metric,
    Networks,
    PairedMetric,
    build_metrics,
)
from f3prune.quality.metrics._digits import request_of
from f3prune.quality.metrics._frechet import frechet_distance, frechet_from_features
from f3prune.quality.metrics._info import INFO, MetricInfo
from f3prune.quality.metrics._networks import FeatureNetwork

__all__ = [
    "INFO",
    "DistanceMetric",
    "EachMetric",
    "FeatureNetwork",
    "Metric",
    "MetricInfo",
    "Networks",
    "PairedMetric",
    "build_metrics",
    "frechet_distance",
    "frechet_from_features",
    "request_of",
]
