"""A T5 tokenizer whose vocabulary is the few words of the prompts; built without any download."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from f3prune.zoo.digits.dataset import vocabulary

MAX_TOKENS = 12
"""Length that prompts are padded or cut to, in tokens, the end-of-text token included."""
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


def build_tokenizer(words: Sequence[str] | None = None, longest: int = MAX_TOKENS) -> Any:
    """A `transformers.T5Tokenizer` that knows whole words; any other word becomes the unknown token.

    Its vocabulary is that of the clips of `digits` unless `words` are given; `longest` is its length in tokens.
    """
    from transformers import T5Tokenizer

    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    known = [(SPACE + word, -1.0) for word in (vocabulary() if words is None else words)]
    return T5Tokenizer(vocab=special + known, extra_ids=0, model_max_length=longest)
