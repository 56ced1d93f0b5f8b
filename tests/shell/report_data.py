"""Contents of a report without a run: small, but with everything that a page can show."""

from __future__ import annotations

import random
from typing import Any

NASTY = '<img src=http://example.invalid/x onerror="1">&'
"""A prompt, or a name, that would be markup if it were not escaped."""


def metric(title: str, unit: str, better: str | None, kind: str) -> dict[str, Any]:
    return {"title": title, "unit": unit, "better": better, "kind": kind}


METRICS = {
    "psnr": metric("PSNR", "dB", "higher", "paired"),
    "ssim": metric("SSIM", "", "higher", "paired"),
    "lpips": metric("LPIPS", "", "lower", "paired"),
    "flicker": metric("Flicker", "", None, "each"),
    "text": metric("Text alignment", "", "higher", "each"),
    "fvd": metric("Fréchet video distance", "", "lower", "distance"),
}


def evaluation() -> dict[str, Any]:
    """Of ``evaluation.json``: paired metrics for the pruned side alone, one interval missing."""
    return {
        "version": 1,
        "dataset": {"name": f"digits {NASTY}", "root": None, "prompts": 40, "samples": 80, "real": 256},
        "metrics": METRICS,
        "dense": {
            "flicker": {"value": 0.071, "interval": [0.068, 0.074]},
            "text": {"value": 0.912, "interval": [0.87, 0.95]},
            "fvd": {"value": 121.4, "interval": [110.0, 139.0]},
        },
        "pruned": {
            "psnr": {"value": 21.3, "interval": [20.4, 22.1]},
            "ssim": {"value": 0.874, "interval": [0.86, 0.89]},
            "lpips": {"value": 0.081, "interval": None},
            "flicker": {"value": 0.0705, "interval": [0.067, 0.0735]},
            "text": {"value": 0.861, "interval": [0.81, 0.90]},
            "fvd": {"value": 118.9, "interval": [107.0, 131.0]},
        },
        "difference": {
            "flicker": {"value": -0.0005, "interval": [-0.002, 0.001], "verdict": "undecided"},
            "text": {"value": -0.051, "interval": [-0.083, -0.02], "verdict": "worse"},
            "fvd": {"value": -2.5, "interval": [-4.9, -0.3], "verdict": "better"},
        },
        "confidence": 0.95,
        "resamples": 1000,
    }


def sweep(points: int = 17) -> dict[str, Any]:
    """Of ``sweep.json``: quality falls as speed rises, with some that are beaten."""
    draw = random.Random(0)
    found = []
    for index in range(points):
        alpha = (index + 1) / (points + 1)
        speedup = 1 + 0.6 * alpha + draw.uniform(-0.05, 0.05)
        value = 34 - 18 * alpha + draw.uniform(-3, 1)
        found.append(
            {
                "config": {
                    "alpha": round(alpha, 3),
                    "granularity": ("layer", "head", "frame-pair")[index % 3],
                    "aggregate": "timesteps",
                    "mode": "local",
                    "stages": 1 + index % 2,
                    "score": "aas",
                    "refit": 0,
                },
                "masks": f"{index:012x}",
                "pruned": {
                    "sites_pruned": index % 4,
                    "sites": 6,
                    "heads_pruned": index,
                    "heads": 24,
                    "pairs_pruned": 0,
                    "pairs": 336,
                },
                "seconds": seconds(0.155 / speedup),
                "speedup": speedup,
                "quality": {
                    "psnr": {"value": value, "interval": [value - 1, value + 1.2] if index % 5 else None},
                    "fvd": {"value": 120 + 80 * alpha, "interval": [110 + 80 * alpha, 131 + 80 * alpha]},
                },
                "pareto": False,
            }
        )
    for point in found:
        point["pareto"] = not any(
            other["speedup"] > point["speedup"]
            and other["quality"]["psnr"]["value"] > point["quality"]["psnr"]["value"]
            for other in found
        )
    return {
        "version": 1,
        "quality": "psnr",
        "metrics": {name: METRICS[name] for name in ("psnr", "fvd")},
        "dense": {"seconds": seconds(0.155), "quality": {"fvd": {"value": 121.4, "interval": [110.0, 139.0]}}},
        "points": found,
    }


def seconds(median: float) -> dict[str, Any]:
    return {
        "median": median,
        "quartile_1": 0.98 * median,
        "quartile_3": 1.03 * median,
        "min": 0.97 * median,
        "runs": 20,
    }


def report(
    sites: int = 6, heads: int = 4, frames: int = 8, timesteps: int = 16, granularity: str = "head", stages: int = 1
) -> dict[str, Any]:
    """Of ``report.json``: of every second site every second head, or many frame pairs, are pruned."""
    draw = random.Random(0)
    names = [f"transformer_blocks.{index}.attn1" for index in range(sites)]
    pairs = granularity == "frame-pair"
    kept = [[key for key in range(frames) if key == query or (key + query) % 3] for query in range(frames)]
    found = []
    for stage in range(stages):
        steps = [stage * timesteps // stages, (stage + 1) * timesteps // stages]
        found.append(
            {
                "steps": steps,
                "timesteps": [999.0 - 20 * steps[0], 999.0 - 20 * (steps[1] - 1)],
                "sites": {
                    name: {
                        "layout": "temporal",
                        "frames": frames,
                        "heads": heads,
                        "aas": [draw.uniform(60, 110) for _ in range(heads)],
                        "pruned_heads": [] if pairs or index % 2 else list(range(stage, heads, 2)),
                        "kept_pairs": kept if pairs and index % 2 == 0 else None,
                        "replacement": "pooled:2:1",
                    }
                    for index, name in enumerate(names)
                },
            }
        )
    counts = {
        "sites": sites,
        "sites_pruned": 0,
        "heads": sites * heads,
        "heads_pruned": 0 if pairs else sites * heads // 4,
        "pairs": sites * frames * (frames - 1),
        "pairs_pruned": frames * sites if pairs else 0,
    }
    mass = [[(1 + key) / (query + 2) ** 2 for key in range(frames + 1)] for query in range(frames)]
    return {
        "version": 1,
        "model": f"zoo:{NASTY}",
        "family": "cogvideox",
        "denoiser_class": "CogVideoXTransformer3DModel",
        "synthetic": False,
        "prompt": {"prompt": f"a 3 {NASTY}"},
        "parameters": {"before": 1_831_568, "after": [1_700_000] * stages},
        "pruning": {
            "alpha": 0.4,
            "granularity": granularity,
            "aggregate": "timesteps",
            "score": "aas",
            "refit": 0,
            "mode": "local",
            "protect": [],
            "digest": "0" * 64,
            "counts": [counts] * stages,
        },
        "stages": found,
        "timesteps": [999.0 - 20 * index for index in range(timesteps)],
        "frame_mass": mass,
        "frame_mass_by_site": dict.fromkeys(names, mass),
        "aas": {name: [[draw.random() for _ in range(heads)] for _ in range(timesteps)] for name in names},
        "fidelity": {
            "psnr": 17.9,
            "psnr_per_frame": [17.3, None, 19.9],
            "ssim": 0.82,
            "flicker_reference": 0.07,
            "flicker_candidate": 0.07,
        },
        "speed": {
            "what": "one call",
            "unit": "denoiser call",
            "batch": 2,
            "timestep": 374.0,
            "backend": "onnxruntime",
            "engine_dtype": "fp32",
            "torch_dtype": "fp32",
            "machine": {"processor": f"CPU {NASTY}", "gpu": None, "torch_threads": 2},
            "seconds": {
                f"{which} {how}": seconds(0.1 if which == "dense" else 0.09)
                for how in ("engine", "PyTorch")
                for which in ("dense", "pruned")
            },
            "speedup": {"engine": 1.11, "torch": 1.08},
        },
        "ceiling": {"dense": 4.2e9, "pruned": 3.7e9, "allow": 4.2 / 3.7},
        "parity": {
            "passed": False,
            "export": comparison("pruned", "engine", 1e-6, {"rel_l2": 1e-4}, []),
            "pruning": comparison("dense", "pruned", 0.2, {"rel_l2": 0.1}, [f"step 0 {NASTY}"]),
            "coupling": {
                "dense": {
                    "response": [[0.5, 0.1, "inf"], [0.0] * 3, [0.1, 0.1, 0.5]],
                    "threshold": 0.0,
                    "responding": [[0, 1, 2], [], [0, 1, 2]],
                }
            },
        },
        "quality": evaluation(),
        "sweep": sweep(),
        "provenance": {"model": f"zoo:{NASTY}", "masks (sha256)": "0" * 64, "versions": "f3prune 0"},
    }


def comparison(
    reference: str, candidate: str, error: float, bounds: dict[str, float], failures: list[str]
) -> dict[str, Any]:
    steps = [
        {
            "step": index,
            "timestep": 999.0 - 250 * index,
            "rel_l2": error * (1 + index),
            "max_abs": error,
            "cosine": 0.9999,
        }
        for index in range(4)
    ]
    return {
        "reference": reference,
        "candidate": candidate,
        "passed": not failures,
        "failures": failures,
        "bounds": bounds,
        "psnr": "inf" if error < 1e-3 else 17.9,
        "video": None,
        "steps": steps,
    }
