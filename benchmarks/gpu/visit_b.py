"""Visit B: trains ``zoo:digits-wan`` on a GPU within a number of seconds.

``python3 benchmarks/gpu/visit_b.py --out "$OUT" --seconds 240 --vae f3prune/zoo/digits_wan/pipeline/vae``

Results in ``--out``, eight files at most: the averaged weights (``average-N.safetensors``, written anew all the time;
``zoo_training.digits_wan.assemble`` makes the pipeline of them), the losses (``log.jsonl``), a sheet of sampled clips,
one a row (``sheet.png``), what the judge says of them (``visit.json``), and the autoencoder if it was trained here.
``--rehearse`` runs the same code on the CPU with tiny settings.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

MOST_ERROR = 0.1
"""Of a digit's pixels, as a share of the brightness range; a black frame has 0.35."""
GOOD_ERROR = 0.05
"""The same, of an autoencoder that needs no training here."""
LARGEST_SHEET = 1_000_000
"""Bytes of the picture of clips."""
FIRST_SEED = 900_000
"""Of the requests that are judged here; those of the card start elsewhere."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes:
        vae: crops in the autoencoder's largest batch.
        vae_further: the same of one that is trained further, an eighth of which are clips of 17 frames: 32 crops or 7
            whole clips of them take some 5 GB.
        encode: clips that are encoded at a time.
        clips, frames: in the pool at most. 12 000 clips of latents take 2.6 GB in bfloat16.
        batches: of single frames, short clips (3 latent frames) and whole clips (13). A clip is 3 328 tokens; with 6
            layers of width 384 it costs 0.6 TFLOP forwards and backwards, 60 % of it attention, so that 32 take
            20 TFLOP: 78 ms of an H200, compiled, measured. 512 frames or 32 clips are 110 000 to 130 000 tokens, and a
            token keeps some 0.2 MB for the way back: 20 to 30 GB.
        steps: of training at most; None: what the time allows.
        layers: of the denoiser.
        judged: clips that are drawn at the end; so many rows of the sheet are the first of them.
        rows: of the sheet.
        denoising: steps for each.
        guidances: that the same requests are drawn with, the one of the sheet first: a clip takes minutes on a
            processor, a batch of them seconds here.
        reserve: seconds that are kept for drawing and judging.
    """

    vae: int = 48
    vae_further: int = 256
    encode: int = 32
    clips: int = 12_000
    frames: int = 24_000
    batches: tuple[int, int, int] = (512, 128, 32)
    steps: int | None = None
    layers: int = 6
    judged: int = 24
    rows: int = 8
    denoising: int = 24
    guidances: tuple[float, ...] = (4.0, 2.0, 6.0)
    reserve: float = 30.0


REHEARSAL = Sizes(
    vae=4,
    vae_further=4,
    encode=2,
    clips=2,
    frames=8,
    batches=(4, 2, 1),
    steps=6,
    layers=1,
    judged=1,
    rows=1,
    denoising=2,
    guidances=(4.0,),
)


class Facts:
    """What is known so far, on disk at every moment."""

    def __init__(self, path: Path) -> None:
        self.path, self.values, self.began = path, {}, time.monotonic()  # type: ignore[var-annotated]

    def note(self, **values: Any) -> None:
        """Add to it, with the seconds since the beginning."""
        self.values |= values | {"seconds": round(time.monotonic() - self.began, 1)}
        waiting = self.path.with_suffix(".tmp")
        waiting.write_text(json.dumps(self.values, indent=1) + "\n", encoding="utf-8")
        os.replace(waiting, self.path)
        print(json.dumps(values), flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Train, sample, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=240, help="for all of it")
    parser.add_argument("--vae", type=Path, help="a trained autoencoder; trained here without, further if not good")
    parser.add_argument("--vae-seconds", type=float, default=60, help="for training the autoencoder, if need be")
    parser.add_argument("--pool-seconds", type=float, default=35)
    parser.add_argument("--compile", action="store_true", help="compile the blocks: 4 seconds for every batch shape")
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args(arguments)
    ends = time.monotonic() + options.seconds
    sizes = REHEARSAL if options.rehearse else Sizes()
    device = "cpu" if options.rehearse else "cuda"
    options.out.mkdir(parents=True, exist_ok=True)
    facts = Facts(options.out / "visit.json")
    facts.note(torch=torch.__version__, device=device if options.rehearse else torch.cuda.get_device_name())

    from zoo_training.digits_wan.train_denoiser import WanTrainer, encode_pool
    from zoo_training.training import Recipe

    torch.backends.cudnn.benchmark = not options.rehearse
    vae = autoencoder(options, sizes, device, facts)
    began = time.monotonic()
    pool = encode_pool(
        vae,
        device,
        lambda: 1 - (time.monotonic() - began) / options.pool_seconds,
        sizes.clips,
        sizes.frames,
        batch=sizes.encode,
    )
    facts.note(pool={"clips": len(pool.clips), "frames": len(pool.frames), "seconds": round(time.monotonic() - began)})
    minutes = max(0.02, (ends - time.monotonic() - sizes.reserve) / 60)
    # The first checkpoint comes early, so that even a visit that is cut off at once leaves one that loads.
    # Wider than the zoo's other denoisers, so it learns at a lower rate.
    recipe = Recipe(
        minutes,
        sizes.steps,
        learning_rate=1.5e-3,
        warm_up=100,
        bfloat16=not options.rehearse,
        checkpoint_seconds=30.0,
    )
    trainer = WanTrainer(pool, recipe, options.out, device, sizes.batches, sizes.layers)
    if options.compile:
        for block in trainer.nets["transformer"].blocks:
            block.compile()
    trainer.train(options.out / "log.jsonl")
    memory = 0.0 if options.rehearse else torch.cuda.max_memory_allocated() / 1e9
    facts.note(steps=trainer.step, clips=trainer.clips, training_seconds=trainer.seconds, gigabytes=round(memory, 1))
    sample(trainer, vae, options.out, sizes, ends, facts)


def autoencoder(options: argparse.Namespace, sizes: Sizes, device: str, facts: Facts) -> Any:
    """The given autoencoder if it is good; otherwise one that is trained here, from that or from nothing."""
    from zoo_training.digits_wan.train_vae import VaeRecipe, load_vae, measure, train

    clips = 1 if options.rehearse else 4
    if options.vae is not None:
        vae = _ready(load_vae(options.vae), device)
        found = measure(vae, device, clips=clips)
        facts.note(given_autoencoder=found)
        if found["held_out_digit_error"] <= GOOD_ERROR or options.vae_seconds <= 0:
            return vae
    batch, rate = (sizes.vae, 2e-3) if options.vae is None else (sizes.vae_further, 1e-3)
    recipe = VaeRecipe(options.vae_seconds, device, batch, learning_rate=rate, start=options.vae, statistics=4 * clips)
    trained = train(recipe, options.out / "vae")
    vae = _ready(load_vae(options.out / "vae"), device)
    facts.note(autoencoder=measure(vae, device, clips=clips) | {"steps": trained["steps"]})
    if facts.values["autoencoder"]["held_out_digit_error"] > MOST_ERROR and not options.rehearse:
        raise SystemExit(f"visit_b: the autoencoder shows no digits (error above {MOST_ERROR}): nothing can learn")
    return vae


def _ready(vae: Any, device: str) -> Any:
    vae = vae.to(device).eval().requires_grad_(False)
    for module in vae.modules():
        if isinstance(module, torch.nn.Conv3d):  # channels last: half the time of a call on a GPU
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
    return vae


@torch.no_grad()
def sample(trainer: Any, vae: Any, out: Path, sizes: Sizes, ends: float, facts: Facts) -> None:
    """Draw clips with the averaged weights until the time is up, put them into a sheet and have them judged."""
    from diffusers import WanPipeline

    from f3prune.zoo.digits_wan.judge import Judge
    from f3prune.zoo.digits_wan.requests import requests
    from zoo_training.digits_wan.architecture import build_scheduler
    from zoo_training.digits_wan.evaluate import draw_clips, score

    nets = trainer.average.eval()
    pipeline = WanPipeline(
        tokenizer=trainer.tokenizer,
        text_encoder=nets["text_encoder"],
        vae=vae,
        transformer=nets["transformer"],
        scheduler=build_scheduler(),
    )
    pipeline.set_progress_bar_config(disable=True)
    wanted = requests(sizes.judged, FIRST_SEED)
    facts.note(prompts=[request.prompt for request in wanted])
    judge, spent = None, 0.0
    for guidance in sizes.guidances:
        drawn: list[np.ndarray] = []
        # Until the time is up, as far as the pace so far tells; the first clips are drawn in any case.
        while len(drawn) < len(wanted) and (judge is None or ends - time.monotonic() > spent):
            began = time.monotonic()
            asked = wanted[len(drawn) : len(drawn) + sizes.rows]
            with trainer.low_precision():
                drawn.extend(draw_clips(pipeline, asked, sizes.denoising, guidance))
            if judge is None:
                write_sheet(np.stack(drawn), out / "sheet.png")
                judge = Judge()
            found = score(wanted[: len(drawn)], np.stack(drawn), judge)
            spent = time.monotonic() - began
            facts.note(scores=facts.values.get("scores", {}) | {f"guidance {guidance}": found})


def write_sheet(clips: np.ndarray, path: Path) -> None:
    """Write clips ``b f h w c`` in [0, 1] as one picture at half size, a row for each; fewer frames if it is large."""
    import imageio.v3 as imageio

    for every in (4, 8, 16):
        rows = np.concatenate([np.concatenate(list(clip[::every, ::2, ::2]), axis=1) for clip in clips])
        imageio.imwrite(path, (rows.clip(0, 1) * 255).round().astype(np.uint8))
        if path.stat().st_size <= LARGEST_SHEET:
            return


if __name__ == "__main__":
    main()
