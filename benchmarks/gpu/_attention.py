"""One attention call of published sizes: dense kernels, and every stand-in in every form, beside what it computes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from _stand_ins import Near, exact_rows
from _timing import attention_by, count_flops, in_turn, repeated
from _visit import Visit

from f3prune.calibration.attention_hook import AttentionCall
from f3prune.calibration.bake.attention import frame_local
from f3prune.families import Site, TokenGrid

CHECKED_QUERIES = 48
TOLERANCE = 2e-2
"""Relative L2 of a bfloat16 attention against float32: rounding gives 3e-3 to 6e-3, a wrong key 0.1 and more."""


@dataclass(frozen=True)
class Shape:
    """A joint-attention call.

    Attributes:
        batch, heads, width: of the call.
        frames: token frames.
        grid: height and width of a frame's token grid.
        text: text tokens before the video.
        pools: patch sizes to try, each with the frames seen whole on each side.
    """

    batch: int
    heads: int
    width: int
    frames: int
    grid: tuple[int, int]
    text: int
    pools: tuple[tuple[tuple[int, int], int], ...]

    def call(self, device: str, dtype: torch.dtype, seed: int = 0) -> AttentionCall:
        """Random q, k and v, laid out as models do: tokens outside heads."""
        generator = torch.Generator(device).manual_seed(seed)
        tokens = self.text + self.frames * math.prod(self.grid)
        shape = (self.batch, tokens, self.heads, self.width)
        q, k, v = (torch.randn(shape, device=device, dtype=dtype, generator=generator) for _ in range(3))
        site = Site("attention", "spatiotemporal", self.heads, self.width, (), (), ())
        return AttentionCall(
            site,
            *(tensor.transpose(1, 2) for tensor in (q, k, v)),
            mask=None,
            scale=self.width**-0.5,
            grid=TokenGrid(self.frames, *self.grid),
            text_before=self.text,
            text_after=0,
        )


PUBLISHED = {
    "cogvideox-2b": Shape(2, 30, 64, 13, (30, 45), 226, (((4, 4), 0), ((3, 3), 0), ((2, 2), 1), ((3, 3), 1))),
    "wan-1.3b": Shape(1, 12, 128, 21, (30, 52), 0, (((4, 4), 0), ((5, 4), 0), ((2, 2), 1), ((5, 4), 1))),
}
TINY = {
    "cogvideox-2b": Shape(2, 2, 8, 4, (4, 6), 5, (((4, 4), 0), ((2, 2), 1))),
    "wan-1.3b": Shape(1, 2, 8, 5, (4, 6), 0, (((3, 4), 0), ((2, 2), 1))),
}


def run(visit: Visit) -> None:
    """Measure every shape."""
    with torch.no_grad():
        for name, shape in (TINY if visit.rehearse else PUBLISHED).items():
            _measure(visit, name, shape)


def _measure(visit: Visit, name: str, shape: Shape) -> None:
    call = shape.call(visit.device, torch.float32 if visit.rehearse else torch.bfloat16)
    rounds = 2 if visit.rehearse else 20
    flops = count_flops(call.dense, visit.device)
    dense: dict[str, float] = {}
    for kernel in ("math",) if visit.rehearse else ("flash", "cudnn", "efficient"):
        with visit.attempt(f"{name} dense {kernel}"), attention_by(kernel):
            found = repeated(call.dense, visit.device, rounds)
            dense[kernel] = found["median"]
            visit.write(f"{name} dense {kernel}", shape=name, seconds=found, tflop_s=_rate(flops, found))
    if not dense:
        return
    best = min(dense, key=lambda kernel: dense[kernel])
    visit.write(f"{name} best", shape=name, kernel=best)
    queries = torch.randint(call.video.start, call.video.stop, (CHECKED_QUERIES,), device=visit.device)
    warm: dict[str, Callable[[], object]] = {}
    facts: dict[str, dict[str, Any]] = {}
    for title, (definition, handler) in _handlers(shape, best).items():
        with visit.attempt(f"{name} {title}"):
            run = _under(best, handler, call)
            output = run()
            error = _relative(output[:, :, queries], exact_rows(definition, call, queries))
            if not error < TOLERANCE:
                visit.write(f"{name} {title}", shape=name, error=f"wrong by {error:.3f} (relative L2)")
                continue
            saved = flops / _flops(shape, definition)
            facts[title] = {"error_l2": error, "bound": saved}
            for _ in range(2):
                run()
            warm[title] = run
            del output
    warm["dense"] = _under(best, AttentionCall.dense, call)
    times = in_turn(warm, visit.device, rounds, lambda: visit.left)
    for title, seconds in times.items():
        if title == "dense":
            continue
        ratio = times["dense"]["median"] / seconds["median"]
        bound = facts[title]["bound"]
        visit.write(
            f"{name} {title}",
            shape=name,
            seconds=seconds,
            dense=times["dense"]["median"],
            ratio=round(ratio, 3),
            share=round(ratio / bound, 3),
            tflop_s=_rate(flops / bound, seconds),
            **facts[title],
        )
    if not visit.rehearse or name == "wan-1.3b":
        _flex(visit, name, shape, call, best)


def _handlers(shape: Shape, kernel: str) -> dict[str, tuple[Near, Callable[[AttentionCall], torch.Tensor]]]:
    """Title → definition, and what computes it."""
    kernels = ("flash",) if kernel != "cudnn" else ("flash", "cudnn")
    local = Near(shape.grid, text_sees="text")
    found: dict[str, tuple[Near, Callable[[AttentionCall], torch.Tensor]]] = {"local folded": (local, frame_local)}
    for one in kernels:
        found[f"local split {one}"] = (local, Near(shape.grid, form="split", kernel=one, text_sees="text"))
    for pool, window in ((None, 1), *shape.pools):
        title = f"window {window}" if pool is None else f"pooled {pool[0]}x{pool[1]} w{window}"
        definition = Near(shape.grid, window, pool)
        found[f"{title} folded"] = (definition, definition)
        for one in kernels:
            found[f"{title} split {one}"] = (definition, Near(shape.grid, window, pool, "split", one))
    return found


def _under(kernel: str, handler: Callable[[AttentionCall], torch.Tensor], call: AttentionCall) -> Callable[[], Any]:
    def run() -> torch.Tensor:
        with attention_by(kernel):
            return handler(call)

    return run


def _flops(shape: Shape, definition: Near) -> float:
    """Products of scores and values, text queries included."""
    tokens = math.prod(shape.grid)
    everything = shape.text + shape.frames * tokens
    video = definition.keys(shape.frames, shape.text) * tokens
    text = shape.text * (everything if definition.text_sees == "everything" else shape.text)
    return 4.0 * shape.batch * shape.heads * shape.width * (video + text)


def _rate(flops: float, seconds: dict[str, Any]) -> float:
    return round(flops / seconds["median"] / 1e12, 1)


def _relative(output: torch.Tensor, expected: torch.Tensor) -> float:
    return float((output.float() - expected).norm() / expected.norm())


def _flex(visit: Visit, name: str, shape: Shape, call: AttentionCall, kernel: str) -> None:
    """PyTorch's compiled FlexAttention: one kernel that skips blocks, for those it takes longest to gather for."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    compiled = torch.compile(flex_attention)
    tokens, device = math.prod(shape.grid), visit.device
    queries = torch.randint(call.video.start, call.video.stop, (CHECKED_QUERIES,), device=device)
    pool, window = shape.pools[0]
    for definition, title in ((Near(shape.grid, 1), "window 1"), (Near(shape.grid, window, pool), "pooled first")):
        if visit.left < (2 if visit.rehearse else 45):
            return
        with visit.attempt(f"{name} {title} flex"):
            frame = torch.full((call.key.shape[2],), -1, device=device)
            frame[call.video] = torch.arange(shape.frames, device=device).repeat_interleave(tokens)
            keys = torch.cat([frame, torch.arange(shape.frames, device=device).repeat_interleave(definition.cells)])
            coarse = torch.arange(keys.numel(), device=device) >= frame.numel()
            bias = torch.zeros(keys.numel(), device=device)
            bias[frame.numel() :] = definition.counts(call.key).float().log().repeat(shape.frames)
            reach = definition.window

            def seen(
                b: Any,
                h: Any,
                q: Any,
                k: Any,
                frame: Any = frame,
                keys: Any = keys,
                coarse: Any = coarse,
                reach: int = reach,
            ) -> Any:
                near = (frame[q] - keys[k]).abs() <= reach
                text = (frame[q] == -1) | (keys[k] == -1)
                return torch.where(coarse[k], ~near & (frame[q] != -1), near | text)

            def raised(score: Any, b: Any, h: Any, q: Any, k: Any, bias: Any = bias) -> Any:
                return score + bias[k]

            mask = create_block_mask(seen, None, None, frame.numel(), keys.numel(), device=device)
            change = raised if definition.pool else None

            def run(definition: Near = definition, mask: Any = mask, change: Any = change) -> torch.Tensor:
                key, value = call.key, call.value
                if definition.pool:
                    extra = [definition.pooled(call, t).flatten(1, 2).transpose(1, 2) for t in (key, value)]
                    key, value = (torch.cat(both, dim=2) for both in zip((key, value), extra, strict=True))
                result: Any = compiled(call.query, key, value, score_mod=change, block_mask=mask, scale=call.scale)
                return result

            error = _relative(run()[:, :, queries], exact_rows(definition, call, queries))
            dense = _under(kernel, AttentionCall.dense, call)
            times = in_turn({"flex": run, "dense": dense}, device, 2 if visit.rehearse else 20, lambda: visit.left)
            bound = count_flops(call.dense, device) / _flops(shape, definition)
            ratio = times["dense"]["median"] / times["flex"]["median"]
            visit.write(
                f"{name} {title} flex",
                shape=name,
                seconds=times["flex"],
                dense=times["dense"]["median"],
                ratio=round(ratio, 3),
                bound=bound,
                share=round(ratio / bound, 3),
                error_l2=error,
                sparsity=round(float(mask.sparsity()), 1),
            )
