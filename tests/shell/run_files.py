"""What a finished run holds, and the steps that made it."""

from __future__ import annotations

FILES = {
    "aas.safetensors",
    "calls.safetensors",
    "masks.json",
    "pruned/model.safetensors",
    "pruned/config.json",
    "pruned/pruning.json",
    "onnx/denoiser.onnx",
    "engine/engine.json",
    "dense/onnx/denoiser.onnx",
    "dense/engine/engine.json",
    "video.mp4",
    "video-dense.mp4",
    "frames.png",
    "check.json",
    "bench.json",
    "report.json",
    "report.html",
    "manifest.json",
    "pruned/manifest.json",
    "onnx/manifest.json",
    "engine/manifest.json",
}
STEPS = ("calibrate", "prune", "export", "build", "generate", "check", "dense engine", "bench", "report")
