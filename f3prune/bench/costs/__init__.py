"""What the arithmetic allows on this machine: its rates, the ceiling of a graph, the plan of a model not yet run."""
