"""A CLIP tokenizer whose vocabulary is the few words of the prompts; built without any download."""

from __future__ import annotations

from typing import Any

from zoo_training.digits_image.dataset import vocabulary

MAX_TOKENS = 12
"""Length that prompts are padded or cut to, in tokens, the two end marks included."""
START, END = "<|startoftext|>", "<|endoftext|>"
LAST = "</w>"


def build_tokenizer() -> Any:
    """A `transformers.CLIPTokenizer` that knows whole words; other words fall apart into letters it was not taught.

    Each word is reached by joining its letters from the left. Longer words come first, so that the joins of a short
    word do not break up a long one that contains it.
    """
    from transformers import CLIPTokenizer

    words = vocabulary()
    merges: dict[tuple[str, str], None] = {}
    for word in sorted(words, key=lambda word: -len(word)):
        letters = [*word[:-1], word[-1] + LAST]
        joined = letters[0]
        for letter in letters[1:]:
            merges[joined, letter] = None
            joined += letter
    tokens = [START, END, *(word + LAST for word in words)]
    letters = sorted({letter for word in words for letter in (*word, word[-1] + LAST)})
    tokens += [*letters, *(left + right for left, right in merges)]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=list(merges), model_max_length=MAX_TOKENS)
