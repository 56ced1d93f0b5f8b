"""The video denoisers of diffusers that have no family, with the reason; and what to say of any other class."""

from __future__ import annotations

_LINEAR = "its attention over frames is linear, without a softmax, so that there is no attention mass to measure"
_BLOCK_MASK = "its attention over frames runs on flex attention with a block mask, which no backend of ours takes"
_PACKED = "one packed sequence holds text, video and other streams, whose places only the call knows"
_UNDECLARED = "nobody has declared its sites yet"

UNSUPPORTED: dict[str, str] = {
    "AnyFlowFARTransformer3DModel": _BLOCK_MASK,
    "Cosmos3OmniTransformer": f"{_PACKED}, and its heads share keys",
    "Kandinsky6SRTransformer3DModel": _BLOCK_MASK,
    "Kandinsky6Transformer3DModel": _UNDECLARED,
    "MiniMaxH3Transformer3DModel": _PACKED,
    "MotifVideoTransformer3DModel": "its decoder blocks attend over two copies of the video at once",
    "SanaVideoTransformer3DModel": _LINEAR,
    "SanaWMLTX2RefinerTransformer3DModel": "it generates chunk by chunk from a cache of keys that the caller holds",
    "SanaWMTransformer3DModel": f"in most blocks {_LINEAR}",
    "WanAnimate2Transformer3DModel": _BLOCK_MASK,
}
"""Class of a video denoiser in diffusers -> why it cannot be pruned. Every other one has a family."""


def why_not(name: str, supported: list[str]) -> str:
    """What to say to a class that has no family, in one line.

    Args:
        name: of the class.
        supported: classes that have one.
    """
    if name in UNSUPPORTED:
        return f"{name} is not supported: {UNSUPPORTED[name]}; f3prune families lists what can be pruned instead"
    end = f"expected one of {', '.join(supported)}; docs/families.md tells how to add one"
    installed = _diffusers()
    if installed is None:
        return f"{name} belongs to no supported family; {end}"
    version, names = installed
    if name in names:
        return f"{name} of diffusers {version} belongs to no supported family, and is no video denoiser we know; {end}"
    return f"{name} is a class of neither diffusers {version} nor f3prune; {end}"


def _diffusers() -> tuple[str, set[str]] | None:
    """Version and public names of the installed diffusers; importing it takes a moment, and happens here alone."""
    try:
        import diffusers
    except ImportError:
        return None
    return diffusers.__version__, set(dir(diffusers))
