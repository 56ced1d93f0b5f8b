"""``python -m f3prune``, the same as the command ``f3prune``."""

from __future__ import annotations

from f3prune.cli.main import main

if __name__ == "__main__":
    main()
