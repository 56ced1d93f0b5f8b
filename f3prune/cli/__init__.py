"""The commands of ``f3prune``. Nothing here imports torch before a command has checked its options."""
