"""Whole denoisers at published sizes in PyTorch, bfloat16, random weights: dense against every replacement.

Every ratio stands beside its GEMM bound: dense operations over the pruned model's, of matrix products and attention
kernels alone. Where less than nine tenths of it are reached, a profile says what else took the time.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from _stand_ins import MeanMap, Near
from _timing import attention_by, count_flops, in_turn, kernels
from _visit import Visit
from torch import nn

from f3prune.bench.costs.published import PUBLISHED
from f3prune.calibration import Masks, SiteMask, Stage, prune_denoiser
from f3prune.calibration.attention_hook import AttentionHook
from f3prune.calibration.bake.surgery import linear
from f3prune.calibration.replacements import replacement_of
from f3prune.core.calls import sample_of
from f3prune.families import Family, LatentShape, Site, family_of
from f3prune.families.classes import denoiser_class
from f3prune.testing import TINY_SHAPES, tiny_denoiser

ALPHAS = (1.0, 0.5, 0.25)
BLOCKS = ("CogVideoXBlock", "WanTransformerBlock")
"""Repeated blocks, which are compiled one by one: all of a kind share one compilation."""
LOW_SHARE = 0.9
ROUNDS = 4


@dataclass
class Subject:
    """A dense denoiser on the device.

    Attributes:
        model: the denoiser.
        family: its declaration.
        inputs: of a call.
        sites: of its attention over frames.
        frames: token frames.
        grid: height and width of a frame's token grid.
        kernel: that dense attention is quickest with.
        forms: of stand-ins, by the beginning of their titles.
    """

    model: nn.Module
    family: Family
    inputs: dict[str, Any]
    sites: list[Site]
    frames: int
    grid: tuple[int, int]
    kernel: str = "flash"
    forms: dict[str, tuple[str, str]] = field(default_factory=dict)

    def chosen(self, alpha: float) -> list[Site]:
        """``floor(α N)`` sites, spread over the depth; which ones does not matter to the time."""
        count = math.floor(alpha * len(self.sites))
        return [self.sites[k * len(self.sites) // count] for k in range(count)] if count else []

    def twin(self) -> nn.Module:
        """A copy that shares the parameters."""
        shared = {id(p): p for p in self.model.parameters()}
        return copy.deepcopy(self.model, memo=dict(shared))

    def runner(self, model: nn.Module, kernel: str | None = None) -> Callable[[], Any]:
        """A call of a model under the quickest kernel, or under that one."""

        def run() -> Any:
            with attention_by(kernel or self.kernel):
                return sample_of(model(**self.inputs, return_dict=False))

        return run


def cogvideox(visit: Visit) -> None:
    """CogVideoX-2b: 13 × 1350 video tokens after 226 of text, batch 2."""
    _measure(visit, "cogvideox-2b", "cogvideox", ((4, 4), 0), ((3, 3), 1))


def wan(visit: Visit) -> None:
    """Wan 2.1 1.3B: 21 × 1560 video tokens, batch 1."""
    _measure(visit, "wan-1.3b", "wan", ((4, 4), 0), ((5, 4), 1))


def animatediff(visit: Visit) -> None:
    """AnimateDiff on Stable Diffusion 1.5: 16 frames of 512 × 512, batch 2."""
    with torch.no_grad():
        subject = _subject(visit, "animatediff-sd15", "animatediff")
        subject.kernel = "math" if visit.rehearse else "cudnn"
        models: dict[str, Callable[[], nn.Module]] = {}
        for alpha in ALPHAS:
            for mode in ("static", "local", "drop"):
                make = _static if mode == "static" else _baked(mode)
                models[f"{mode} α={alpha:g}"] = lambda make=make, alpha=alpha: make(subject, alpha)
        _compare(visit, subject, models)


def _measure(visit: Visit, name: str, variant: str, *pools: tuple[tuple[int, int], int]) -> None:
    with torch.no_grad():
        subject = _subject(visit, name, variant)
        _take_best(visit, subject, name)
        models: dict[str, Callable[[], nn.Module]] = {}
        for alpha in ALPHAS:
            for mode in ("local", "drop"):
                make = _baked(mode)
                models[f"{mode} α={alpha:g}"] = lambda make=make, alpha=alpha: make(subject, alpha)
            for pool, window in ((None, 1), *pools):
                handler, form = _best_form(visit, subject, pool, window)
                title = f"window {window}" if pool is None else f"pooled {handler.pool[0]}x{handler.pool[1]} w{window}"
                models[f"{title} ({form}) α={alpha:g}"] = lambda handler=handler, alpha=alpha: _handled(
                    subject, alpha, handler
                )
            if alpha == 1 and (split := subject.forms.get("local")) is not None and split[0] == "split":
                local = Near(subject.grid, form="split", kernel=split[1], text_sees="text")
                models["local (split) α=1"] = lambda local=local: _handled(subject, 1.0, local)
        _compare(visit, subject, models)


def _subject(visit: Visit, name: str, variant: str) -> Subject:
    if visit.rehearse:
        model, shape, batch = tiny_denoiser(variant), TINY_SHAPES[variant], 2
    else:
        known = PUBLISHED[name]
        torch.set_default_dtype(torch.bfloat16)
        with torch.device(visit.device):
            model = denoiser_class(known.class_name)(**known.config)
        torch.set_default_dtype(torch.float32)
        model.to(torch.bfloat16)
        _randomize(model)
        family = family_of(model)
        shape = family.default_shape(model.config) if known.latent is None else LatentShape(*known.latent)
        batch = known.batch
    model.eval().requires_grad_(False)
    family = family_of(model)
    inputs = family.synthetic_inputs(model, shape, batch, torch.Generator(visit.device).manual_seed(0))
    tokens = family.token_grid(model, inputs)
    patch = math.isqrt(shape.height * shape.width // tokens.tokens_per_frame)
    subject = Subject(
        model,
        family,
        inputs,
        family.find_sites(model),
        tokens.frames,
        (shape.height // patch, shape.width // patch),
        "math" if visit.rehearse else "flash",
    )
    visit.write(
        "model",
        model=name,
        parameters=sum(p.numel() for p in model.parameters()),
        sites=len(subject.sites),
        frames=tokens.frames,
        tokens_per_frame=tokens.tokens_per_frame,
        batch=batch,
    )
    return subject


def _randomize(model: nn.Module) -> None:
    """Random values of the size that keeps activations near one: products of zeros run faster than real ones."""
    generator = torch.Generator(next(model.parameters()).device).manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            parameter.normal_(0, parameter.shape[1:].numel() ** -0.5, generator=generator)
        elif "norm" in name and name.endswith("weight"):
            parameter.normal_(1, 0.1, generator=generator)
        else:
            parameter.normal_(0, 0.1, generator=generator)


def _take_best(visit: Visit, subject: Subject, name: str) -> None:
    """Kernel and forms that were the quickest when attention was measured alone."""
    rows = [row for row in visit.earlier("attention") if row.get("shape") == name]
    for row in rows:
        if "kernel" in row:
            subject.kernel = row["kernel"]
    best: dict[str, float] = {}
    for row in rows:
        words = row["name"].removeprefix(f"{name} ").split()
        form = next((word for word in words if word in ("folded", "split")), None)
        if form is None or "ratio" not in row:
            continue
        title = " ".join(words[: words.index(form)])
        if row["ratio"] > best.get(title, 0.0):
            best[title] = row["ratio"]
            subject.forms[title] = (form, words[-1] if form == "split" else "")


def _best_form(visit: Visit, subject: Subject, pool: tuple[int, int] | None, window: int) -> tuple[Near, str]:
    if pool is not None and visit.rehearse:
        pool = (2, 2)
    title = f"window {window}" if pool is None else f"pooled {pool[0]}x{pool[1]} w{window}"
    form, kernel = subject.forms.get(title, ("folded", ""))
    return Near(subject.grid, window, pool, form, kernel or "flash"), form  # type: ignore[arg-type]


def _masks(subject: Subject, alpha: float, mode: Any) -> Masks:
    gone = {site.name for site in subject.chosen(alpha)}
    sites = {
        site.name: SiteMask(
            site.layout,
            subject.frames,
            site.heads,
            (0.0,) * site.heads,
            tuple(range(site.heads)) if site.name in gone else (),
            replacement=replacement_of(mode) if site.name in gone else None,
        )
        for site in subject.sites
    }
    stage = Stage((0, 1), (1.0, 1.0), sites)
    return Masks(subject.family.name, alpha, "layer", "timesteps", mode, (stage,))


def _baked(mode: str) -> Callable[[Subject, float], nn.Module]:
    def make(subject: Subject, alpha: float) -> nn.Module:
        return prune_denoiser(subject.twin(), _masks(subject, alpha, mode))

    return make


def _handled(subject: Subject, alpha: float, handler: Near) -> nn.Module:
    model = subject.twin()
    AttentionHook(model, subject.family, {site.name: handler for site in subject.chosen(alpha)}).attach()
    return model


def _static(subject: Subject, alpha: float) -> nn.Module:
    model = subject.twin()
    for site in subject.chosen(alpha):
        value, output = linear(model, site.value[0]), linear(model, site.outputs[0][0])
        weight = value.weight
        maps = torch.randn(site.heads, subject.frames, subject.frames, device=weight.device).softmax(-1)
        model.set_submodule(site.name, MeanMap(value, output, maps.to(weight.dtype)))
    return model


def _compare(visit: Visit, subject: Subject, models: dict[str, Callable[[], nn.Module]]) -> None:
    dense = subject.runner(subject.model)
    kernel = "math" if visit.rehearse else "flash"
    flops = count_flops(subject.runner(subject.model, kernel), visit.device)
    runs: dict[str, Callable[[], Any]] = {"dense": dense}
    bounds: dict[str, float] = {"dense": 1.0}
    others = () if visit.rehearse else tuple(k for k in ("flash", "cudnn", "efficient") if k != subject.kernel)
    for other in others:
        with visit.attempt(f"dense {other}"):
            run = subject.runner(subject.model, other)
            run()
            runs[f"dense {other}"], bounds[f"dense {other}"] = run, 1.0
    for title, make in models.items():
        if visit.left < 20 and not visit.rehearse:
            visit.write(title, error="left out: no time")
            continue
        with visit.attempt(title):
            model = make()
            run = subject.runner(model)
            output = run()
            if not bool(torch.isfinite(output).all()):
                raise ArithmeticError("the output is not finite")
            bounds[title] = flops / count_flops(subject.runner(model, kernel), visit.device)
            runs[title] = run
    for run in runs.values():
        run()
    times = in_turn(runs, visit.device, 2 if visit.rehearse else ROUNDS, lambda: visit.left - 15)
    _write(visit, times, bounds, flops)
    low = [
        title
        for title in times
        if title.endswith("α=1") and times["dense"]["median"] / times[title]["median"] < LOW_SHARE * bounds[title]
    ]
    for title in ["dense", *low]:
        if visit.left > 3:
            visit.write(f"profile {title}", kernels=kernels(runs[title], visit.device))


def _write(visit: Visit, times: dict[str, Any], bounds: dict[str, float], flops: int, **more: Any) -> None:
    for title, seconds in times.items():
        ratio = times[next(iter(times))]["median"] / seconds["median"]
        visit.write(
            title,
            seconds=seconds,
            ratio=round(ratio, 3),
            bound=round(bounds[title], 3),
            share=round(ratio / bounds[title], 3),
            tflop_s=round(flops / bounds[title] / seconds["median"] / 1e12, 1),
            **more,
        )


def compiled_cogvideox(visit: Visit) -> None:
    """CogVideoX-2b, its blocks compiled: dense, frame-local, windowed and pooled."""
    _measure_compiled(visit, "cogvideox-2b", "cogvideox", (3, 3))


def compiled_wan(visit: Visit) -> None:
    """Wan 2.1 1.3B, its blocks compiled."""
    _measure_compiled(visit, "wan-1.3b", "wan", (5, 4))


def _measure_compiled(visit: Visit, name: str, variant: str, pool: tuple[int, int]) -> None:
    """Elementwise work and norms fused: how far the ratio comes to its bound when attention and products are left."""
    torch._dynamo.config.recompile_limit = 64
    with torch.no_grad():
        subject = _subject(visit, name, variant)
        subject.kernel = "math" if visit.rehearse else "cudnn"
        pool = (2, 1) if visit.rehearse else pool
        stand_ins = {
            "local (split)": Near(subject.grid, form="split", kernel="cudnn", text_sees="text"),
            f"pooled {pool[0]}x{pool[1]} w0 (split)": Near(subject.grid, 0, pool, "split", "cudnn"),
            "window 1 (split)": Near(subject.grid, 1, None, "split", "cudnn"),
            f"pooled {pool[0]}x{pool[1]} w1 (split)": Near(subject.grid, 1, pool, "split", "cudnn"),
        }
        makers: dict[str, Callable[[], nn.Module]] = {
            "dense": subject.twin,
            "local": lambda: _baked("local")(subject, 1),
        }
        for title, handler in stand_ins.items():
            makers[title] = lambda handler=handler: _handled(subject, 1.0, handler)
        kernel = "math" if visit.rehearse else "flash"
        flops = count_flops(subject.runner(subject.model, kernel), visit.device)
        runs: dict[str, Callable[[], Any]] = {}
        bounds: dict[str, float] = {}
        for title, make in makers.items():
            if visit.left < (1 if visit.rehearse else 22):
                visit.write(f"compiled {title}", error="left out: no time")
                continue
            with visit.attempt(f"compiled {title}"):
                model = make()
                expected = subject.runner(model)()
                bounds[f"compiled {title}"] = flops / count_flops(subject.runner(model, kernel), visit.device)
                for module in model.modules():
                    if type(module).__name__ in BLOCKS:
                        module.compile()
                run, started = subject.runner(model), time.perf_counter()
                output = run()
                seconds = time.perf_counter() - started
                error = float((output.float() - expected.float()).norm() / expected.float().norm())
                visit.write(f"compiled {title}", error_l2=error, compile_seconds=round(seconds, 1))
                run()
                runs[f"compiled {title}"] = run
                if visit.rehearse and len(runs) == 3:
                    break
        times = in_turn(runs, visit.device, 2 if visit.rehearse else ROUNDS, lambda: visit.left - 3)
        _write(visit, times, bounds, flops)
        for title, run in runs.items():
            if visit.left > 3:
                visit.write(f"profile {title}", kernels=kernels(run, visit.device))
