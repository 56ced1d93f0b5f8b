"""What the stages share: errors, progress, files and manifests, the run directory, lazy weights, recorded calls."""
