"""MODEL found, loaded and called; prompts; video files."""
