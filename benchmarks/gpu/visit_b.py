"""Visit B: trains ``zoo:digits-wan`` on a GPU, autoencoder and all, within a number of seconds.

Results in ``--out``: the autoencoder, the denoiser's and text encoder's averaged weights (written every minute), the
losses, and a sheet of sampled clips, one a row. ``--rehearse`` runs the same code on the CPU with tiny settings.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

MOST_ERROR = 0.1
"""Of a digit's pixels, as a share of the brightness range; a black frame has 0.35."""
PROMPTS = (
    "a red 3 moving fast left",
    "a blue 7 moving slowly up",
    "a green 0 moving slowly right",
    "a yellow 5 moving fast down",
    "a cyan 2 moving fast right",
    "a purple 8 moving slowly left",
    "a red 4 moving slowly down and a blue 9 moving fast right",
    "a green 6 moving fast up and a yellow 1 moving slowly left",
    "a purple 5 moving slowly right and a cyan 3 moving slowly left",
    "a yellow 7 moving fast left and a red 2 moving fast right",
    "a blue 0 moving fast up and a green 8 moving fast down",
    "a cyan 6 moving slowly down and a purple 4 moving fast up",
)


def main() -> None:
    """Train, sample, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=400, help="for all of it")
    parser.add_argument("--vae", type=Path, help="a trained autoencoder; trained first without")
    parser.add_argument("--vae-seconds", type=float, default=110)
    parser.add_argument("--pool-seconds", type=float, default=35)
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    ends = time.monotonic() + options.seconds
    from diffusers import AutoencoderKLWan

    from zoo_training.digits_wan.train_denoiser import WanTrainer, encode_pool
    from zoo_training.digits_wan.train_vae import VaeRecipe, train
    from zoo_training.training import Recipe

    device = "cpu" if options.rehearse else "cuda"
    torch.backends.cudnn.benchmark = not options.rehearse
    options.out.mkdir(parents=True, exist_ok=True)
    folder = options.vae
    if folder is None:
        folder = options.out / "vae"
        facts = train(VaeRecipe(options.vae_seconds, device, 4 if options.rehearse else 48), folder)
        print(f"autoencoder: { ({key: value for key, value in facts.items() if key != 'log'}) }", flush=True)
        if facts["held_out_digit_error"] > MOST_ERROR and not options.rehearse:
            raise SystemExit(f"visit_b: the autoencoder shows no digits (error above {MOST_ERROR}): nothing can learn")
    vae: Any = AutoencoderKLWan.from_pretrained(folder).to(device).eval().requires_grad_(False)
    for module in vae.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
    began = time.monotonic()
    pool = encode_pool(
        vae,
        device,
        lambda: options.pool_seconds - (time.monotonic() - began),
        clips=2 if options.rehearse else 6000,
        frames=8 if options.rehearse else 40_000,
        batch=2 if options.rehearse else 32,
    )
    spent = time.monotonic() - began
    print(f"pool: {len(pool.clips)} clips, {len(pool.frames)} frames in {spent:.0f} s", flush=True)
    after = 6 if options.rehearse else 22
    minutes = max(0.02, (ends - time.monotonic() - after) / 60)
    recipe = Recipe(
        minutes,
        max_steps=8 if options.rehearse else None,
        bfloat16=not options.rehearse,
        checkpoint_seconds=45.0,
    )
    sizes = (4, 2, 1) if options.rehearse else (512, 128, 32)
    trainer = WanTrainer(pool, recipe, options.out, device, sizes)
    if not options.rehearse:
        for block in trainer.nets["transformer"].blocks:
            block.compile()
    trainer.train(options.out / "log.jsonl")
    print(f"denoiser: {trainer.step} steps in {trainer.seconds:.0f} s, clips {trainer.clips}", flush=True)
    sample(trainer, vae, options.out, steps=2 if options.rehearse else 24, most=1 if options.rehearse else None)


@torch.no_grad()
def sample(trainer: Any, vae: Any, out: Path, steps: int, most: int | None) -> None:
    """Draw clips with the averaged weights and put them into a sheet: one a row, every other frame, half size."""
    import imageio.v3 as imageio
    from diffusers import WanPipeline

    from f3prune.zoo.digits_wan.dataset import CANVAS, FRAMES
    from zoo_training.digits_wan.architecture import build_scheduler
    from zoo_training.digits_wan.train_denoiser import encode_text, tokenize

    prompts = list(PROMPTS[:most])
    device = trainer.device
    nets = trainer.average.eval()
    pipeline = WanPipeline(
        tokenizer=trainer.tokenizer,
        text_encoder=nets["text_encoder"],
        vae=vae,
        transformer=nets["transformer"],
        scheduler=build_scheduler(),
    )
    pipeline.set_progress_bar_config(disable=True)
    said, nothing = (
        encode_text(nets["text_encoder"], tokenize(trainer.tokenizer, texts).to(device))
        for texts in (prompts, [""] * len(prompts))
    )
    with trainer.low_precision():
        frames = pipeline(
            prompt_embeds=said,
            negative_prompt_embeds=nothing,
            height=CANVAS,
            width=CANVAS,
            num_frames=FRAMES,
            num_inference_steps=steps,
            guidance_scale=4.0,
            generator=[torch.Generator("cpu").manual_seed(k) for k in range(len(prompts))],
            output_type="np",
        ).frames
    rows = np.concatenate([np.concatenate(list(clip[::2, ::2, ::2]), axis=1) for clip in np.asarray(frames)])
    imageio.imwrite(out / "sheet.png", (rows.clip(0, 1) * 255).round().astype(np.uint8))
    (out / "prompts.json").write_text(json.dumps(prompts, indent=1) + "\n", encoding="utf-8")
    print("sampled", flush=True)


if __name__ == "__main__":
    main()
