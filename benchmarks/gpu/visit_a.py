"""Visit A: does it run on a GPU, and how fast? TensorRT-RTX engines against PyTorch, then speed at published sizes.

``--rehearse`` runs the same code on the CPU with tiny shapes and ONNX Runtime in TensorRT-RTX's place. Results are
lines of ``rows.jsonl`` in ``--out``; ``--json`` also writes them as one file.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from _visit import ROWS, Planned, Visit, by_part, read_rows, run_parts


def _part(module: str, function: str = "run"):
    def run(visit: Visit) -> None:
        getattr(importlib.import_module(module), function)(visit)

    return run


PARTS = {
    "card": Planned(_part("_card"), 40),
    "engines": Planned(_part("_engines"), 130),
    "engine_speed": Planned(_part("_engine_speed"), 240),
    "attention": Planned(_part("_attention"), 80),
    "cogvideox": Planned(_part("_models", "cogvideox"), 115),
    "wan": Planned(_part("_models", "wan"), 100),
    "animatediff": Planned(_part("_models", "animatediff"), 70),
    "compiled_cogvideox": Planned(_part("_models", "compiled_cogvideox"), 120),
    "compiled_wan": Planned(_part("_models", "compiled_wan"), 120),
}


def main() -> None:
    """Run the parts, or one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help="in this order")
    parser.add_argument("--seconds", type=float, default=480, help="for all of it")
    parser.add_argument("--out", type=Path, help="folder of the results; a temporary one without")
    parser.add_argument("--json", type=Path, help="all results as one file")
    parser.add_argument("--graphs", type=Path, help="folder of exported graphs, made where missing")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with tiny shapes")
    parser.add_argument("--run-part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="visit-a-"))
    out.mkdir(parents=True, exist_ok=True)
    graphs = options.graphs or Path(tempfile.gettempdir()) / "f3prune-visit-graphs"
    if options.run_part:
        visit = Visit(options.run_part, out / ROWS, time.time() + options.seconds, options.rehearse, graphs)
        PARTS[options.run_part].run(visit)
        return
    if not options.rehearse:
        import torch

        if not torch.cuda.is_available():
            print("visit_a: skipped, PyTorch sees no NVIDIA GPU on this machine (--rehearse runs on the CPU)")
            return
    handed_on = ["--graphs", str(graphs), *(["--rehearse"] if options.rehearse else [])]
    names = options.parts.split(",")
    run_parts(Path(__file__), PARTS, names, out, options.seconds, handed_on)
    rows = read_rows(out / ROWS)
    if options.json:
        text = json.dumps(by_part(rows), indent=1, ensure_ascii=False)
        options.json.write_text(text + "\n", encoding="utf-8")
    from _tables import show

    show(rows)


if __name__ == "__main__":
    main()
