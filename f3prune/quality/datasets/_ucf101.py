"""UCF-101 as it is distributed: ``UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi``. Imports no torch."""

from __future__ import annotations

import re
from pathlib import Path

from f3prune.core.errors import InputError
from f3prune.quality.datasets._decode import RealVideo
from f3prune.quality.datasets._files import draw, videos_under


def ucf101(root: Path, samples: int | None = 2048, seed: int = 0) -> list[RealVideo]:
    """Videos of UCF-101, each with its class as prompt.

    Videos are drawn uniformly without repetition, so that classes have about their shares. The protocol of most
    papers is 2 048 videos, and from each 16 consecutive frames from a random place: ``decode(video, frames=16)``.
    Fréchet distances compare at equal numbers of videos only.

    Source:
        Soomro et al. 2012, UCF101, arXiv 1212.0402; the protocol: Skorokhodov et al. 2021, StyleGAN-V, arXiv
        2112.14683, section 4.

    Args:
        root: the directory of class directories.
        samples: how many; None for all.
        seed: of the draw.

    Raises:
        InputError: no such directory, no videos in class directories, or fewer than ``samples``.
    """
    try:
        found = videos_under(root, "*/*")
    except InputError as error:
        if root.is_dir() and any(path.suffix.lower() == ".avi" for path in root.iterdir()):
            raise InputError(f"{root} holds videos but no class directories: give the one above it") from error
        raise
    return [RealVideo(prompt_of_class(path.parent.name), path) for path in draw(found, samples, seed, root)]


def prompt_of_class(name: str) -> str:
    """A class name as words: ``ApplyEyeMakeup`` to "apply eye makeup", ``YoYo`` to "yo yo", ``TaiChi`` to "tai chi"."""
    return " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)).lower()
