"""A tokenizer for prompts made of a closed set of words, saved as one small JSON file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from f3prune.core.errors import InputError
from f3prune.core.json_values import parse_json
from f3prune.core.places import read_regular

FILE = "tokenizer.json"


class PromptTokenizer(Protocol):
    """What generation needs of a text tokenizer.

    Attributes:
        text_len: T, text slots of a sequence; ``encode`` gives no more.
        pad: token of an empty text slot.
        begin_of_image: token of slot 0 of every frame.
    """

    text_len: int
    pad: int
    begin_of_image: int

    def encode(self, prompt: str) -> list[int]:
        """The prompt's tokens, without padding: at least one and at most ``text_len``."""
        ...


class WordTokenizer:
    """One token per word, in the one vocabulary that text shares with images.

    Ids 0 to ``first - 1`` are image tokens. Then come pad, begin-of-image and begin-of-text, then the words in order.
    Every prompt starts with begin-of-text, so the empty prompt, which guidance compares with, is a text too.
    """

    def __init__(self, words: Sequence[str], first: int, text_len: int) -> None:
        """``words``: all that a prompt can hold; ``first``: the number of image tokens; ``text_len``: T.

        Raises:
            InputError: a word is there twice, or there is no room for text.
        """
        repeated = sorted({word for word in words if list(words).count(word) > 1})
        if repeated:
            raise InputError(f"the vocabulary holds '{repeated[0]}' more than once: give every word once")
        if text_len < 1 or first < 1:
            raise InputError(f"text_len is {text_len} and first is {first}, expected both to be at least 1")
        self.words = tuple(words)
        self.first = first
        self.text_len = text_len
        self.pad, self.begin_of_image, self.begin_of_text = range(first, first + 3)
        self._ids = {word: first + 3 + index for index, word in enumerate(self.words)}

    @property
    def vocab_size(self) -> int:
        """Image tokens, special tokens and words together."""
        return self.first + 3 + len(self.words)

    def encode(self, prompt: str) -> list[int]:
        """Begin-of-text and the prompt's words, which stand between spaces: 1 to ``text_len`` ids.

        Raises:
            InputError: a word is not in the vocabulary, or there are more than fit.
        """
        words = prompt.split()
        for word in words:
            if word not in self._ids:
                raise InputError(
                    f"'{word}' in the prompt '{' '.join(words)}' is not a word this model knows: it knows "
                    f"{', '.join(self.words)}"
                )
        if len(words) >= self.text_len:
            raise InputError(
                f"the prompt '{' '.join(words)}' has {len(words)} words, expected at most {self.text_len - 1}"
            )
        return [self.begin_of_text, *(self._ids[word] for word in words)]

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes ``tokenizer.json`` into ``folder``, which is made if it is not there."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        content = {"first": self.first, "text_len": self.text_len, "words": list(self.words)}
        (target / FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> WordTokenizer:
        """Reads what ``save_pretrained`` wrote.

        Raises:
            InputError: the file is missing or not of that form.
        """
        file = Path(folder) / FILE
        try:
            content = parse_json(read_regular(file))
            words, first, text_len = content["words"], content["first"], content["text_len"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file} is not a word tokenizer ({error}): expected words, first and text_len") from error
        if not (isinstance(first, int) and isinstance(text_len, int) and isinstance(words, list)):
            raise InputError(f"{file} is not a word tokenizer: expected a list of words and two whole numbers")
        return cls([str(word) for word in words], first, text_len)
