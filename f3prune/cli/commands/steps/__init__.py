"""The steps of a run, one command each, and all of them."""
