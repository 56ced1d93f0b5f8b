"""Peak memory of every step of a run on the CPU, for a denoiser of about 1 GB in fp32, with and without ``--offload``.

    python benchmarks/check_memory.py --json benchmarks/results/check_memory.json

``tests/bench/test_plan.py`` holds what ``f3prune plan`` expects against the result.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from f3prune.bench.speed import machine

WAN = {"in_channels": 16, "out_channels": 16, "text_dim": 256, "freq_dim": 256, "attention_head_dim": 64}
SIZES = {"num_attention_heads": 12, "ffn_dim": 3072, "rope_max_seq_len": 64}
LATENTS = ("--num-frames", "3", "--height", "8", "--width", "8")


def save_model(folder: Path, layers: int) -> int:
    """Seeded weights of a Wan transformer in fp32; returns the number of parameters."""
    import torch
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    model = WanTransformer3DModel(num_layers=layers, **WAN, **SIZES)
    model.save_pretrained(folder)
    return sum(weight.numel() for weight in model.parameters())


def measured(*arguments: str) -> dict[str, float]:
    """``peak_gb`` of the process of a command of f3prune, and ``seconds`` on the clock."""
    started = time.monotonic()
    child = subprocess.Popen([sys.executable, "-m", "f3prune", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"f3prune {' '.join(arguments)} ended with status {status}")
    found = {"peak_gb": usage.ru_maxrss * 1024 / 1e9, "seconds": time.monotonic() - started}
    print(f"{' '.join(arguments[:1]):10} {found['peak_gb']:.2f} GB {found['seconds']:.0f} s", flush=True)
    return found


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=27)
    parser.add_argument("--alpha", default="0.5")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="f3prune-") as scratch:
        model, run = str(Path(scratch) / "model"), str(Path(scratch) / "run")
        parameters = save_model(Path(model), options.layers)
        calibrate = ("calibrate", model, "-o", run, "--num-prompts", "1", "--steps", "2", *LATENTS)
        steps = {
            "calibrate, weights in files": measured(*calibrate[:3], f"{run}-2", *calibrate[4:], "--offload", "layers"),
            "calibrate": measured(*calibrate),
            "prune": measured("prune", run, "--alpha", options.alpha, "--score", "aas"),
            "export": measured("export", run),
            "build": measured("build", run),
            "check": measured("check", run, "--reference", "dense"),
            "check, weights in files": measured("check", run, "--reference", "dense", "--offload", "layers"),
        }
    result = {"parameters": parameters, "machine": machine(), "steps": steps}
    options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
