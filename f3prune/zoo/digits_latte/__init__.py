"""zoo:digits-latte: the digit clips drawn by a transformer of alternating spatial and temporal blocks (Latte)."""
