"""Keep other libraries' progress bars, logs and warnings off the terminal unless they were asked for."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Any

from f3prune.core.errors import SlowerWarning

_LOGGERS = ("torch", "onnxscript", "onnx_ir", "diffusers", "transformers", "huggingface_hub", "accelerate")


def silence(debug: bool = False) -> None:
    """Call before the first heavy import. With ``debug`` everything stays as the libraries have it."""
    if debug:
        return
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", SlowerWarning)
    warnings.showwarning = _show
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("ORT_LOGGING_LEVEL", "3")
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)


def _show(message: Warning | str, *more: Any, **named: Any) -> None:
    """Our own warnings as one line; no place in a file of ours helps whoever reads it."""
    del more, named
    print(f"f3prune: {message}", file=sys.stderr)


def silence_imported() -> None:
    """What can only be switched off after the import: transformers' and diffusers' loading bars."""
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
