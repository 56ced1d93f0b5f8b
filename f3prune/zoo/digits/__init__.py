"""`zoo:digits`: handwritten digits that move, as a small CogVideoX pipeline, and the scripts that trained it."""
