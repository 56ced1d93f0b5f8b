"""Memory and time of building a TensorRT-RTX engine from an exported graph, ahead of time and without a GPU."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from _measure import environment, peak_of, write


def measure(graph: Path, capability: str) -> None:
    """Build once and print what the build worker took as one JSON line."""
    from engines import BuildConfig, build_engine

    config = BuildConfig("tensorrt-rtx", batch=(2, 2, 2), compute_capabilities=(capability,), cache=False)
    with tempfile.TemporaryDirectory(dir=graph.parent) as folder:
        record = build_engine(graph, folder, config)
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
    print(json.dumps({"engine_gb": round(size / 1e9, 3), "worker": record.built}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("graph", type=Path, help="denoiser.onnx with its weights beside it")
    parser.add_argument("--compute-capability", default="8.9")
    parser.add_argument("--json")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.graph, options.compute_capability)
        return
    arguments = [__file__, str(options.graph), "--compute-capability", options.compute_capability, "--measure"]
    write(options.json, {"environment": environment(), **peak_of(arguments)})


if __name__ == "__main__":
    main()
