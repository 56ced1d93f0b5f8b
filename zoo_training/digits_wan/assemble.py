"""Builds the pipeline from what a visit to a GPU machine left: its newest whole checkpoint and the autoencoder.

``python -m zoo_training.digits_wan.assemble --visit DIR --vae FOLDER --out PIPELINE``
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from zoo_training.digits_wan.architecture import build_text_encoder, build_tokenizer, build_transformer
from zoo_training.digits_wan.train_denoiser import load_average, write_pipeline


def assemble(visit: Path, vae: Path, out: Path) -> dict[str, Any]:
    """Write the pipeline to ``out``, bfloat16, and beside it ``training.json``: how far training was.

    Args:
        visit: folder with ``average-*.safetensors``.
        vae: the autoencoder that the denoiser was trained on; may be ``out/vae``.
        out: the pipeline's folder.
    """
    tensors, said = load_average(visit)
    nets = {"transformer": build_transformer(), "text_encoder": build_text_encoder(len(build_tokenizer()))}
    for name, net in nets.items():
        net.load_state_dict(tensors[name])
    if vae.resolve() != (out / "vae").resolve():
        shutil.copytree(vae, out / "vae", dirs_exist_ok=True)
    write_pipeline(nets, out)
    facts = {"steps": int(said["step"]), "seconds": int(said["seconds"]), "clips": json.loads(said["clips"])}
    (out / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visit", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    print(json.dumps(assemble(options.visit, options.vae, options.out)))


if __name__ == "__main__":
    main()
