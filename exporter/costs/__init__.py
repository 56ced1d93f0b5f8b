"""What a graph costs to run, counted node by node; nothing runs and no weights are read."""

from __future__ import annotations

from f3prune.exporter.costs._graph_costs import GraphCosts, NodeCost, graph_costs

__all__ = ["GraphCosts", "NodeCost", "graph_costs"]
