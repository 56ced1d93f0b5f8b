"""Trace a denoiser with ``torch.export``: named flat tensors in, the denoised tensors out."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as fx_config

from f3prune.core.calls import outputs_of
from f3prune.core.errors import ExportError, F3PruneError, reason_of
from f3prune.exporter._axes import Axes, at_least_two
from f3prune.exporter.arguments import Arguments
from f3prune.exporter.metadata import output_names
from f3prune.exporter.rewrites import traced_with_rewrites


class FlatDenoiser(nn.Module):
    """A denoiser that takes its tensors in a row and returns what it denoises in a row."""

    def __init__(self, denoiser: nn.Module, arguments: Arguments, axes: Axes | None = None) -> None:
        super().__init__()
        self.denoiser = denoiser
        self._axes = axes or {}
        self._names = tuple(arguments.tensors)
        self._arguments = arguments
        parameters = inspect.signature(type(denoiser).forward).parameters
        self._outputs = output_names(denoiser)
        self._extra = {"return_dict": False} if "return_dict" in parameters else {}

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Tensors in the order of ``Arguments.tensors``; returns the outputs, the sample first."""
        named = dict(zip(self._names, tensors, strict=True))
        self._unify(named)
        call = self._arguments.rebuild(named)
        return tuple(outputs_of(self.denoiser(**call, **self._extra), self._outputs).values())

    def _unify(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Tell the tracer that the batch of one input is the batch of all.

        Otherwise each has a symbol of its own until the trace ends, and a reshape of one by the size of another
        leaves a quotient: Allegro's and LTX-Video's attention masks came out ``s42//s95`` long, which fits nothing.
        """
        seen: dict[str, Any] = {}
        for name, symbols in self._axes.items():
            for axis, symbol in symbols.items():
                size = tensors[name].shape[axis]
                if symbol.factor == 1:
                    torch._check(size == seen.setdefault(symbol.name, size))
        for name, symbols in self._axes.items():
            for axis, symbol in symbols.items():
                if symbol.factor != 1 and symbol.name in seen:
                    torch._check(tensors[name].shape[axis] == symbol.factor * seen[symbol.name])


def run_denoiser(denoiser: nn.Module, arguments: Arguments, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The sample that PyTorch answers to ``tensors`` put in the places of ``arguments``."""
    return run_whole(denoiser, arguments, tensors)[0]


def run_whole(
    denoiser: nn.Module, arguments: Arguments, tensors: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """All that PyTorch answers, in the order of the denoiser's outputs."""
    with torch.inference_mode():
        found = FlatDenoiser(denoiser, arguments)(*(tensors[name] for name in arguments.tensors))
        return tuple(output.clone() for output in found)


def trace(denoiser: nn.Module, arguments: Arguments, axes: Axes) -> ExportedProgram:
    """Trace ``denoiser`` on the tensors of ``arguments``.

    Requires:
        evaluation mode; the batch may be one.

    Ensures:
        no dimension of ``axes`` became a constant; weights are referenced, not copied.

    Raises:
        ExportError: ``torch.export`` refuses the model, or needs a symbolic dimension to be constant.
    """
    tensors = at_least_two(arguments.tensors, axes)
    dims = {symbol.name: Dim(symbol.name, min=1) for symbols in axes.values() for symbol in symbols.values()}
    shapes = tuple(
        {
            axis: dims[symbol.name] if symbol.factor == 1 else symbol.factor * dims[symbol.name]
            for axis, symbol in axes[name].items()
        }
        or None
        for name in arguments.tensors
    )
    flat = FlatDenoiser(denoiser, arguments, axes).eval()
    return traced(flat, tuple(tensors.values()), shapes, type(denoiser).__name__, tuple(dims))


def traced(
    module: nn.Module, tensors: tuple[torch.Tensor, ...], shapes: Any, what: str, symbols: tuple[str, ...]
) -> ExportedProgram:
    """``torch.export`` of a module whose forward takes ``*tensors``, with ``shapes`` for each.

    Raises:
        ExportError: it is refused; the message names ``what`` and the ``symbols``.
    """
    try:
        with (
            torch.no_grad(),
            quiet_third_parties(),
            traced_with_rewrites(),
            # Sizes of one must not be told apart from others, or batch 1 would be refused.
            fx_config.patch(backed_size_oblivious=True),  # type: ignore[attr-defined]
        ):
            return torch.export.export(
                module,
                tensors,
                dynamic_shapes={"tensors": shapes},
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
    except F3PruneError:
        raise
    except Exception as error:
        raise ExportError(
            f"torch.export refused {what} with `dynamic` {', '.join(symbols) or 'nothing'}: {reason_of(error, 400)}"
        ) from error


@contextlib.contextmanager
def quiet_third_parties() -> Iterator[None]:
    """Hide warnings about what torch and diffusers do among themselves while a model is traced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
