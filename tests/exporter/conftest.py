"""Exports of tiny denoisers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests import exports


@pytest.fixture(scope="session")
def exported() -> Callable[..., exports.Exported]:
    """``exported(variant, dtype="fp32", **options)``; the same arguments give the same export."""
    return exports.exported
