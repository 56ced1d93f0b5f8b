"""What the runtime costs beside the graph: overhead of a step, guidance as one batch or two, weights of several stages.

Also counts what the keys and values of text, which do not change over timesteps, take of a step's matrix products at
published sizes: by formula, which a count of an exported graph checks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _measure import alternate, environment, write

PUBLISHED: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    # Configurations as published; text tokens as the pipelines pad them; tokens are those of the default video.
    "Wan 2.1 1.3B, 81x480x832": (
        {"width": 1536, "layers": 30, "ffn": 8960, "text_width": 1536},
        {"tokens": 32760, "text": 512},
    ),
    "Wan 2.1 14B, 81x720x1280": (
        {"width": 5120, "layers": 40, "ffn": 13824, "text_width": 5120},
        {"tokens": 75600, "text": 512},
    ),
    "LTX-Video 2B, 161x512x704": (
        {"width": 2048, "layers": 28, "ffn": 8192, "text_width": 2048},
        {"tokens": 7392, "text": 128},
    ),
}


def text_share(width: int, layers: int, ffn: int, text_width: int, tokens: int, text: int) -> float:
    """Share of text keys and values in the matrix products of a block of self-attention, cross-attention, feed-forward.

    ``layers`` cancels out: blocks are all the products but for the embeddings, which are left out.
    """
    del layers
    keys_values = 2 * text * text_width * width
    self_attention = 4 * tokens * width**2 + 2 * tokens**2 * width
    cross_attention = 2 * tokens * width**2 + 2 * tokens * text * width + keys_values
    return keys_values / (self_attention + cross_attention + 2 * tokens * width * ffn)


def wan(width: int, layers: int, shape: tuple[int, int, int], text_width: int = 512) -> tuple[Any, dict[str, Any]]:
    """A Wan-shaped denoiser with random weights, and inputs of a batch of two."""
    import torch
    from diffusers import WanTransformer3DModel

    from f3prune.core.weights import randomize_weights
    from f3prune.families import LatentShape, family_of

    denoiser = WanTransformer3DModel(
        num_attention_heads=width // 64,
        attention_head_dim=64,
        text_dim=text_width,
        freq_dim=256,
        ffn_dim=4 * width,
        num_layers=layers,
    )
    randomize_weights(denoiser, 0)
    denoiser.eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    return denoiser, family_of(denoiser).synthetic_inputs(denoiser, LatentShape(*shape), 2, generator)


def build(denoiser: Any, inputs: Any, folder: Path) -> Path:
    from f3prune.engines import BuildConfig, build_engine
    from f3prune.exporter import ExportConfig, export_denoiser

    result = export_denoiser(denoiser, inputs, folder / "onnx", ExportConfig(self_test=False))
    build_engine(result.path, folder / "engine", BuildConfig(cache=False))
    return folder / "engine"


def overhead_and_guidance(folder: Path, rounds: int) -> dict[str, Any]:
    """A step through ``EngineDenoiser`` over the raw session, and a batch of two over two calls."""
    import torch

    from f3prune.engines import EngineDenoiser, open_session

    rows: dict[str, Any] = {}
    for name, width, layers, shape in (("Wan, 2 × 500 tokens", 256, 3, (5, 20, 20)),):
        denoiser, inputs = wan(width, layers, shape)
        with open_session(build(denoiser, inputs, folder / name), "cpu") as session:
            engine = EngineDenoiser(denoiser, session)
            names = [spec.name for spec in session.inputs]
            both = {key: inputs[key].contiguous() for key in names}
            one = {key: value[:1].contiguous() for key, value in both.items()}
            output = {session.outputs[0].name: torch.empty_like(both["hidden_states"])}
            raw = session.bind(both, output)
            rows[name] = alternate(
                {
                    "raw session": raw,
                    "EngineDenoiser": lambda e=engine, i=inputs: e(**i, return_dict=False),
                    "two calls": lambda e=engine, i=one: (e(**i, return_dict=False), e(**i, return_dict=False)),
                },
                rounds,
            )
            times = {key: row["median"] for key, row in rows[name].items()}
            rows[name]["overhead"] = times["EngineDenoiser"] / times["raw session"] - 1
            rows[name]["two_over_one"] = times["two calls"] / times["EngineDenoiser"]
    return rows


def stage_worker(folders: list[str]) -> None:
    """Open the engines of all stages, run each, and print what that takes of memory and of time."""
    import gc
    import time

    import torch

    from f3prune.engines import open_session

    def memory() -> tuple[int, int]:
        """Bytes of this process's share of all its pages, and of those that no file backs."""
        gc.collect()
        lines = [line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]]
        sizes = {line[0]: int(line[1]) * 1024 for line in lines}
        return sizes["Pss:"], sizes["Anonymous:"]

    before = memory()
    sessions = [open_session(folder, "cpu") for folder in folders]
    generator = torch.Generator().manual_seed(0)
    inputs = {
        spec.name: torch.ones(spec.resolve({"batch": 1}) or (), dtype=spec.torch_dtype)
        if spec.dtype == "int64"
        else torch.randn(spec.resolve({"batch": 1}) or (), generator=generator)
        for spec in sessions[0].inputs
    }
    times = []
    for session in sessions:  # each in a row, as in a generation: the threads of the one before it go to sleep
        for number in range(8):
            start = time.perf_counter()
            session.run(inputs)
            if number > 1:
                times.append(time.perf_counter() - start)
    resident, anonymous = (after - start for after, start in zip(memory(), before, strict=True))
    print(json.dumps({"bytes": resident, "anonymous": anonymous, "seconds": sorted(times)[len(times) // 2]}))


def stages(folder: Path) -> dict[str, Any]:
    """Disk and memory of the engines of one, two and four stages whose weights are the same but for one tensor."""
    import torch

    from f3prune.engines import share_weights

    denoiser, inputs = wan(512, 3, (3, 16, 16))
    found: dict[str, Any] = {}
    engines = []
    for stage in range(4):
        with torch.no_grad():
            denoiser.blocks[0].ffn.net[0].proj.weight.mul_(1.5)
        engines.append(build(denoiser, inputs, folder / f"stage-{stage}"))
    for count in (1, 2, 4):
        places = [folder / f"{count}-{number}" for number in range(count)]
        for source, place in zip(engines, places, strict=False):
            place.mkdir()
            for file in source.iterdir():
                (place / file.name).write_bytes(file.read_bytes())
        plain = _worker(places)
        disk = share_weights(places)
        found[str(count)] = {"separate": plain, "shared": _worker(places), **disk}
    return found


def text_keys_and_values(folder: Path) -> dict[str, Any]:
    """Share of text keys and values at published sizes, and the formula beside a count of a small exported graph."""
    from f3prune.exporter import ExportConfig, export_denoiser
    from f3prune.exporter.costs import graph_costs

    width, layers, shape = 128, 2, (5, 16, 16)
    denoiser, inputs = wan(width, layers, shape)
    graph = export_denoiser(denoiser, inputs, folder / "text", ExportConfig(self_test=False)).path
    text = inputs["encoder_hidden_states"].shape[1]
    costs = graph_costs(graph, {"batch": 2, "text": text})
    blocks = [node for node in costs.nodes if node.module.startswith("blocks.")]
    texts = [node for node in blocks if node.module.endswith(("attn2.to_k", "attn2.to_v"))]
    counted = sum(node.matmul_flops for node in texts) / sum(node.matmul_flops for node in blocks)
    tokens = shape[0] * shape[1] * shape[2] // 4
    return {
        "published": {name: text_share(**config, **size) for name, (config, size) in PUBLISHED.items()},
        "check": {"counted": counted, "formula": text_share(width, layers, 4 * width, width, tokens, text)},
    }


def _worker(places: list[Path]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--stages", *map(str, places)]
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return result


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Markdown tables by block name."""
    steps = ["| denoiser | raw session | EngineDenoiser | overhead | two calls over one batch |", "| --- " * 5 + "|"]
    for name, row in result["steps"].items():
        raw, ours = (row[key]["median"] * 1e3 for key in ("raw session", "EngineDenoiser"))
        steps.append(f"| {name} | {raw:.1f} ms | {ours:.1f} ms | {row['overhead']:.1%} | {row['two_over_one']:.2f}× |")
    head = "| stages | disk | shared | memory | shared | of it anonymous | shared | a step | shared |"
    weights = [head, "| --- " * 9 + "|"]
    for count, row in result["stages"].items():
        sizes = [row["bytes_before"], row["bytes_after"]]
        sizes += [row[way][key] for key in ("bytes", "anonymous") for way in ("separate", "shared")]
        shown = " | ".join(f"{size / 1e6:.0f} MB" for size in sizes)
        times = " | ".join(f"{row[key]['seconds'] * 1e3:.1f} ms" for key in ("separate", "shared"))
        weights.append(f"| {count} | {shown} | {times} |")
    text = ["| published model and video | text keys and values, of all products |", "| --- | --- |"]
    text += [f"| {name} | {share:.2%} |" for name, share in result["text"]["published"].items()]
    return {"steps": "\n".join(steps), "stages": "\n".join(weights), "text": "\n".join(text)}


PARTS = ("steps", "stages", "text")


def measure(part: str, folder: Path, rounds: int) -> dict[str, Any]:
    """One part of the result."""
    if part == "steps":
        return overhead_and_guidance(folder, rounds)
    return stages(folder) if part == "stages" else text_keys_and_values(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="the file keeps its other parts")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--stages", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stages:
        stage_worker(options.stages)
        return
    known: Mapping[str, Any] = {}
    if options.json is not None and options.json.is_file():
        known = json.loads(options.json.read_text(encoding="utf-8"))
    result = {**known, "environment": environment()}
    for part in options.only:
        with tempfile.TemporaryDirectory() as folder:
            result[part] = measure(part, Path(folder), options.rounds)
        write(None if options.json is None else str(options.json), result)


if __name__ == "__main__":
    main()
