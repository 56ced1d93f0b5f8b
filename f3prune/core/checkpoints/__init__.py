"""Checkpoints of a pipeline's components on disk: which files they are, and loading them whole or not at all."""
