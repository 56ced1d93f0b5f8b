"""Speed: a denoiser call, whole generations of every contender, costs and what they allow."""
