"""One module per backend: how it builds, and how its sessions run."""
