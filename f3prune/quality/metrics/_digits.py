"""Whether a zoo model's clip shows what its prompt asks for. Imports torch only when a judge is made."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

from f3prune.core.errors import InputError
from f3prune.quality._packages import need
from f3prune.quality.metrics._frames import Frames, check_frames


@dataclass(frozen=True)
class Request:
    """What a prompt asks for; None for what it does not name.

    Attributes:
        digit: 0 to 9.
        direction: "left", "right", "up" or "down".
    """

    digit: int | None
    direction: str | None


def request_of(prompt: str) -> Request:
    """What a prompt in one of the zoo's wordings asks for; nothing for any other text.

    Source:
        ``TEMPLATES`` and ``STILL_TEMPLATES`` of ``f3prune.zoo.digits.dataset``.
    """
    from f3prune.zoo.digits.dataset import WORDS

    for pattern in _patterns():
        found = pattern.fullmatch(" ".join(prompt.lower().split()).rstrip("."))
        if found:
            name = found["digit"]
            digit = WORDS.index(name) if name in WORDS else int(name)
            return Request(digit, found.groupdict().get("direction"))
    return Request(None, None)


class PromptFollowing:
    """The zoo's judge of digits and directions; it is trained when it is first asked (a few seconds)."""

    def digit(self, video: Frames, prompt: str) -> float | None:
        """1 if the clip ``f h w 3`` shows the digit of the prompt, 0 if not, None if the prompt names none.

        Raises:
            InputError: not a video, or scikit-learn is missing.
        """
        wanted = request_of(prompt).digit
        return None if wanted is None else float(self._judge(check_frames(video)).digit == wanted)

    def motion(self, video: Frames, prompt: str) -> float | None:
        """1 if the clip ``f h w 3`` moves as the prompt says, 0 if not, None if the prompt names no direction.

        Raises:
            InputError: not a video, or scikit-learn is missing.
        """
        wanted = request_of(prompt).direction
        return None if wanted is None else float(self._judge(check_frames(video)).direction == wanted)

    def _judge(self, video: Frames) -> Any:
        from f3prune.zoo.digits.dataset import CANVAS

        if video.shape[1:3] != (CANVAS, CANVAS):
            raise InputError(
                f"the judge of digits reads clips of {CANVAS} x {CANVAS} pixels, not {video.shape[1]} x "
                f"{video.shape[2]}: leave out prompt_digit and prompt_motion for other models"
            )
        return _trained_judge()(video)


@functools.cache
def _trained_judge() -> Any:
    need("sklearn", "prompt_digit and prompt_motion", extra="zoo")
    from f3prune.zoo.digits.judge import Judge

    return Judge()


@functools.cache
def _patterns() -> tuple[re.Pattern[str], ...]:
    from f3prune.zoo.digits.dataset import DIRECTIONS, STILL_TEMPLATES, TEMPLATES, WORDS

    digit = f"(?P<digit>[0-9]|{'|'.join(WORDS)})"
    direction = f"(?P<direction>{'|'.join(DIRECTIONS)})"
    return tuple(
        re.compile(template.format(digit=digit, direction=direction)) for template in (*TEMPLATES, *STILL_TEMPLATES)
    )
