"""What rewrites ask of a Transpose."""

from __future__ import annotations

import onnx_ir as ir


def transpose_order(node: ir.Node) -> list[int]:
    """Which axis of its input each axis of a Transpose is; empty where the number of axes is not known."""
    given, source = node.attributes.get("perm"), node.inputs[0]
    if given is not None:
        return list(given.as_ints())
    if source is None or (source.shape is None and source.const_value is None):
        return []
    shape = source.shape if source.shape is not None else source.const_value.shape
    return list(reversed(range(len(shape))))
