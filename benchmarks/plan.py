"""What pruning can give published models, from their configurations alone: the table of ``f3prune plan``."""

from __future__ import annotations

import argparse
from typing import Any

from _measure import environment, write


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Markdown: ``published``."""
    alphas = [outlook["alpha"] for outlook in next(iter(result["models"].values()))["outlooks"][1:]]
    lines = [
        "| model | parameters | TFLOP a call | in scores and values | "
        + " | ".join(f"GEMM speed-up bound, α = {alpha:g}" for alpha in alphas)
        + " |",
        "| --- " * (4 + len(alphas)) + "|",
    ]
    for found in result["models"].values():
        dense, *pruned = found["outlooks"]
        lines.append(
            f"| {found['title']} | {dense['parameters'] / 1e9:.2f} B | {dense['flops'] / 1e12:,.0f} | "
            f"{dense['attention_flops'] / dense['flops']:.1%} | "
            + " | ".join(f"{outlook['products_allow']:.2f}×" for outlook in pruned)
            + " |"
        )
    return {"published": "\n".join(lines)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json")
    options = parser.parse_args()
    from f3prune.bench.costs.machine import measure_machine
    from f3prune.bench.costs.plan import PlanOptions, plan
    from f3prune.bench.costs.published import PREFIX, PUBLISHED
    from f3prune.core.json_values import json_values

    before, rates = environment(), measure_machine()
    models = {name: json_values(plan(f"{PREFIX}{name}", PlanOptions(), rates)) for name in PUBLISHED}
    write(options.json, {"environment": before, "rates": json_values(rates), "models": models})


if __name__ == "__main__":
    main()
