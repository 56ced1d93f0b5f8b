"""What a build made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from f3prune.core.manifest import Manifest


def attention_lines(entry: Manifest, names: bool) -> Iterator[str]:
    """How many attentions of each engine are one kernel, a line an engine; with ``names`` the others by module.

    ONNX Runtime computes attention to few keys in three operators on purpose, so that its engines are told of only
    where names are asked for.
    """
    facts = entry.facts
    if facts["backend"] == "onnxruntime" and not names:
        return
    for number, (fused, unfused) in enumerate(zip(facts["attention_fused"], facts["attention_unfused"], strict=True)):
        if fused is None or unfused is None or fused + len(unfused) == 0:
            continue
        engine = "engine" if len(facts["attention_fused"]) == 1 else f"engine {number + 1}"
        line = f"{engine}: {fused} of {fused + len(unfused)} attentions are one kernel"
        if unfused and facts["dtype"] == "fp32" and facts["backend"] != "onnxruntime":
            line += f"; {facts['backend']} fuses none in fp32: `f3prune export --dtype bf16`"
        elif unfused and not names:
            line += "; --inspect names the others"
        yield line
        if names:
            yield from (f"  not fused: {name.rpartition('/')[0] or name}" for name in unfused)
