"""What all tests share."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True, scope="session")
def quiet_tracing():
    """Tracing logs every symbol at DEBUG when a handler listens, as pytest's capture does: exports slow down."""
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)
