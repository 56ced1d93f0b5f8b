"""CogVideo-shaped decoding on ONNX Runtime's CPU provider: one frame token by token, given four, dense against pruned.

12 layers, hidden 512, 8 heads, 64 text tokens, frames of 400 tokens, 20 000 image tokens; random weights. Engines are
built by the same code as ``f3prune build`` and run in turn, in chunks of the frame. Beside each ratio stands what the
bytes alone would allow: decoding one token reads every weight and every cached key and value once.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from _measure import environment, write

TEXT, GIVEN = 64, 4
ALPHAS = (0.25, 0.5, 0.75, 0.9, 1.0)


def masks_for(model: Any, alpha: float, granularity: str, mode: str) -> Any:
    """Masks from seeded random frame mass: which layers go does not matter for the time, how many do."""
    import torch

    from f3prune.calibration import Calibration, PruneConfig, select_masks
    from f3prune.calibration.calibration_file import SiteInfo
    from f3prune.families import family_of

    family, frames = family_of(model), model.shape.frame_num
    generator = torch.Generator().manual_seed(0)
    sites = {site.name: SiteInfo(site.layout, site.heads) for site in family.find_sites(model)}
    mass = {
        name: torch.rand(1, site.heads, frames, frames + 1, generator=generator).softmax(-1)
        for name, site in sites.items()
    }
    return select_masks(
        Calibration(family.name, (0.0,), sites, mass), PruneConfig(alpha, granularity, mode=mode, score="aas")
    )


def bytes_per_token(model: Any, batch: int, image_tokens: int) -> int:
    """Weights and caches that one token reads."""
    shape = model.shape
    weights = sum(p.numel() for p in model.layers.parameters()) + image_tokens * shape.hidden_size
    slots = TEXT + shape.frame_len, TEXT + (GIVEN + 1) * shape.frame_len
    caches = sum(cache.nbytes for cache in model.empty_caches(batch, *slots))
    return 4 * weights + caches


class GivenCaches:
    """An engine whose prefill is skipped: caches of zeros are as long and take as long to read."""

    def __init__(self, engine: Any) -> None:
        self.shape, self.device, self.bind = engine.shape, engine.device, engine.bind
        self._engine = engine

    def prefill(self, tokens: Any, *ignored: Any) -> tuple[None, Any]:
        return None, self._engine.empty_caches(tokens.shape[0], TEXT, tokens.shape[1])


class Contender:
    """One engine in the middle of its fifth frame."""

    def __init__(self, model: Any, masks: Any, folder: Path, given: Any, image_tokens: int) -> None:
        import torch

        from f3prune.engines import BuildConfig, build_engine, open_session
        from f3prune.engines.cogvideo import EngineCogVideo, autoregressive_ranges
        from f3prune.exporter import export_autoregressive
        from f3prune.models.cogvideo.decoding import Decoding

        graph = export_autoregressive(model, folder, range(GIVEN), image_tokens=image_tokens, graphs=["decode"]).decode
        config = BuildConfig(cache=False, ranges=autoregressive_ranges(model.shape, GIVEN + 1))
        build_engine(graph.path, folder / "engine", config, masks.digest)
        self.session = open_session(folder / "engine", masks_digest=masks.digest)
        self.engine = EngineCogVideo(model.shape, None, self.session)
        self.times: list[float] = []
        self.graph_times: list[float] = []
        self._watch_graph()
        batch = given.shape[0]
        text = torch.ones(batch, TEXT, dtype=torch.int64)
        self.decoding = Decoding(GivenCaches(self.engine), text, torch.ones_like(text), given, range(GIVEN + 1), 0)
        self.decoding.begin_frame()
        self.token = torch.zeros(batch, dtype=torch.int64)
        self.cache_mb = self.decoding.cache_bytes / 1e6

    def _watch_graph(self) -> None:
        """Time the graph's own run apart from all that the loop does around it."""
        session = self.session
        bind = session.bind

        def timed_bind(inputs: Any, outputs: Any) -> Any:
            run = bind(inputs, outputs)

            def step() -> None:
                start = time.perf_counter()
                run()
                self.graph_times.append(time.perf_counter() - start)

            return step

        session.bind = timed_bind

    def decode(self, tokens: int, count: bool) -> None:
        """Draw some tokens greedily; the first of a chunk warms the caches up and is not counted."""
        for index in range(tokens):
            start = time.perf_counter()
            self.token = self.decoding.step(self.token).argmax(dim=-1)
            if count and index:
                self.times.append(time.perf_counter() - start)
            else:
                self.graph_times.pop()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The curve of both modes."""
    import torch

    from f3prune.calibration import prune_denoiser
    from f3prune.core.weights import randomize_weights
    from f3prune.models import CogVideo, CogVideoConfig
    from f3prune.models.cogvideo.decoding import beside_engine

    config = CogVideoConfig(
        num_layers=options.layers,
        hidden_size=512,
        num_attention_heads=8,
        vocab_size=options.image_tokens + 100,
        text_len=TEXT,
        frame_len=400,
        frame_num=GIVEN + 1,
    )
    torch.manual_seed(0)
    dense = CogVideo(config)
    randomize_weights(dense, 0)
    dense.eval().requires_grad_(False)
    given = torch.randint(options.image_tokens, (options.batch, GIVEN, config.frame_len))
    points = [(0.0, "local")] + [(alpha, mode) for mode in ("local", "drop") for alpha in options.alphas]
    rows: dict[str, Any] = {}
    contenders: dict[str, Contender] = {}
    with tempfile.TemporaryDirectory(prefix="f3prune-") as scratch:
        for alpha, mode in points:
            name = f"alpha={alpha:g} {mode}" if alpha else "dense"
            masks = masks_for(dense, alpha, "layer", mode)
            model = prune_denoiser(copy.deepcopy(dense), masks)
            contenders[name] = Contender(
                model, masks, Path(scratch) / name.replace(" ", "-"), given, options.image_tokens
            )
            rows[name] = {
                "alpha": alpha,
                "mode": mode,
                "layers_pruned": sum(bool(mask.pruned_heads) for mask in masks.stages[0].sites.values()),
                "cache_mb": round(contenders[name].cache_mb, 2),
                "mb_per_token": round(bytes_per_token(model, options.batch, options.image_tokens) / 1e6, 1),
            }
            print(f"built {name}", flush=True)
        chunk = config.frame_len // options.chunks
        with beside_engine(None):
            for number in range(options.chunks):
                for contender in contenders.values():
                    contender.decode(chunk, count=number > 0 or options.chunks == 1)
        for name, contender in contenders.items():
            low, middle, high = statistics.quantiles(contender.times, n=4)
            graph = statistics.median(contender.graph_times)
            rows[name] |= {"median": middle, "q1": low, "q3": high, "tokens": len(contender.times)}
            rows[name]["loop_overhead"] = statistics.mean(contender.times) / statistics.mean(contender.graph_times) - 1
            rows[name]["graph_median"] = graph
            contender.session.close()
    for row in rows.values():
        row["speedup"] = rows["dense"]["median"] / row["median"]
        row["bytes_allow"] = rows["dense"]["mb_per_token"] / row["mb_per_token"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json")
    parser.add_argument("--batch", type=int, default=2, help="2 is prompt and guide")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--image-tokens", type=int, default=20000)
    parser.add_argument("--alphas", type=float, nargs="+", default=list(ALPHAS))
    parser.add_argument("--chunks", type=int, default=8, help="of the frame, between which engines take turns")
    options = parser.parse_args()
    rows = measure(options)
    write(
        options.json,
        {
            "environment": environment(),
            "shape": f"{options.layers} layers, hidden 512, 8 heads, {TEXT} text, 400 tokens x {GIVEN + 1} frames",
            "batch": options.batch,
            "image_tokens": options.image_tokens,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
