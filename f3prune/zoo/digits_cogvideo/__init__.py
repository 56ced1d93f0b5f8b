"""`zoo:digits-cogvideo`: the moving digits of `zoo:digits`, drawn by a small CogVideo; and what trained it."""
