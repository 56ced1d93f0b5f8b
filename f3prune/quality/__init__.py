"""Quality: metrics, data sets, evaluation, sweeps and the choice of a ratio."""
