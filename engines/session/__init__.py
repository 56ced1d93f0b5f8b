"""An open engine: one interface for all backends."""

from __future__ import annotations

from f3prune.engines.session._session import Session, open_session, require_version
from f3prune.engines.session._specs import bind_shapes

__all__ = ["Session", "bind_shapes", "open_session", "require_version"]
