"""Commands that measure a run: speed, quality, many configurations."""
