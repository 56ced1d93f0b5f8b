"""From a traced program to a clean ONNX model."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import onnx_ir as ir
import torch
from onnx_ir.passes import common
from onnxscript import optimizer, rewriter
from onnxscript.rewriter.rules import common as rules
from torch.export import ExportedProgram

from f3prune.core.errors import ExportError, reason_of
from f3prune.exporter._axes import Axes
from f3prune.exporter._trace import quiet_third_parties
from f3prune.exporter.node_names import InheritModule, name_by_module
from f3prune.exporter.rewrites import FOLDED_REWRITES, GRAPH_REWRITES

OUTPUT = "sample"
OUTPUT_BESIDE_SAMPLE = "out_sample"
_WRAPPER = "denoiser."
_LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir")

# Those of onnxscript's rules that do something in a denoiser's graph; all of them would take half of an export's time.
_RULES = (
    rules.no_op_cast_rule,
    rules.cast_cast_rule,
    rules.no_op_expand_rule,
    rules.no_op_transpose_rule,
    rules.transpose_transpose_rule,
    rules.reshape_reshape_rule,
    rules.materialize_reshape_shape_rule,
    rules.unsqueeze_unsqueeze_rule,
    rules.collapse_slice_rule,
    rules.collapse_slice2_rule,
    rules.add_0_rule,
    rules.mul_by_1_rule,
    rules.div_by_1_rule,
)


def to_onnx(
    program: ExportedProgram,
    input_names: Sequence[str],
    axes: Axes,
    opset: int,
    output_names: Sequence[str] | None = None,
) -> ir.Model:
    """Translate a traced program.

    Ensures:
        inputs are called ``input_names``, outputs ``output_names`` (else as :func:`output_name` says); symbolic sizes
        have their names from ``axes``; weights have their names in the denoiser and are references to its tensors. No
        node carries stack traces or paths; each is named after the module it came from
        (``f3prune.exporter.node_names``).

    Raises:
        ExportError: the translation fails, or a symbolic size of ``axes`` became a constant.
    """
    try:
        with quiet_third_parties(), _quiet_loggers():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                input_names=list(input_names),
                output_names=list(output_names or [output_name(input_names)]),
                optimize=False,
                verbose=False,
            )
    except Exception as error:
        raise ExportError(f"the ONNX translation failed: {reason_of(error, 400)}") from error
    if exported is None:
        raise ExportError("the ONNX translation gave no model: use another torch version")
    found = [value.name for value in exported.model.graph.inputs]
    if found != list(input_names):
        raise ExportError(f"the graph takes {found}, expected {list(input_names)}: report this denoiser")
    exported.rename_axes(_symbols(exported.model, axes))
    model: ir.Model = exported.model
    _strip_wrapper(model)
    name_by_module(model)
    common.ClearMetadataAndDocStringPass()(model)
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    return model


def output_name(input_names: Sequence[str]) -> str:
    """``sample``, or ``out_sample`` where the forward already takes a ``sample``, as UNets do."""
    return OUTPUT_BESIDE_SAMPLE if OUTPUT in input_names else OUTPUT


def clean(model: ir.Model) -> tuple[ir.Model, tuple[str, ...]]:
    """Fold small constants, drop what does nothing, and apply the graph rewrites.

    Ensures:
        the same function; no constant larger than 64 KiB was made; node and value names depend on the graph alone.

    Returns:
        The model and the names of the graph rewrites that changed it.
    """
    with _quiet_loggers():
        if model.functions:
            common.InlinePass()(model)
        applied = tuple(rewrite.__name__ for rewrite in GRAPH_REWRITES if rewrite()(model).modified)
        optimizer.fold_constants_ir(model, onnx_shape_inference=False, input_size_limit=1024, output_size_limit=16384)
        rewriter.RewritePass(_RULES)(model)
        applied += tuple(rewrite.__name__ for rewrite in FOLDED_REWRITES if rewrite()(model).modified)
        for cleanup in (
            common.IdentityEliminationPass(),
            common.RemoveUnusedNodesPass(),
            common.RemoveUnusedFunctionsPass(),
            common.RemoveUnusedOpsetsPass(),
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            common.LiftSubgraphInitializersToMainGraphPass(),
            common.DeduplicateInitializersPass(),
            common.CommonSubexpressionEliminationPass(),
            common.RemoveUnusedNodesPass(),
            common.OutputFixPass(),
            InheritModule(),
            common.NameFixPass(),
        ):
            cleanup(model)
    return model, applied


def _symbols(model: ir.Model, axes: Axes) -> dict[str | ir.SymbolicDim, str]:
    """Which of torch's symbols (``s39``) is which of ours (``batch``)."""
    names: dict[str | ir.SymbolicDim, str] = {}
    for value in model.graph.inputs:
        for axis, symbol in axes.get(value.name, {}).items():
            size = value.shape[axis]
            if not isinstance(size, ir.SymbolicDim) or size.value is None:
                raise ExportError(
                    f"{symbol.name} became the constant {size} in input {value.name}: the model's forward depends on "
                    f"its value; leave {symbol.name} out of `dynamic`"
                )
            if symbol.factor == 1:
                names[size.value] = symbol.name
    return names


def _strip_wrapper(model: ir.Model) -> None:
    """Give weights the names that they have in the denoiser."""
    initializers = model.graph.initializers
    for name in [name for name in initializers if name.startswith(_WRAPPER)]:
        value = initializers.pop(name)
        value.name = name.removeprefix(_WRAPPER)
        initializers[value.name] = value


@contextmanager
def _quiet_loggers() -> Iterator[None]:
    """Third parties log what they did not fold; that is of no use to whoever exports."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels: Mapping[str, int] = {logger.name: logger.level for logger in loggers}
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger in loggers:
            logger.setLevel(levels[logger.name])
