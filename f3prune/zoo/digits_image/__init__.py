"""`zoo:digits-image`: still images of handwritten digits, as a small Stable Diffusion pipeline: a base for tuning."""
