"""CLIPSIM: how well a video's frames fit its prompt, by a local CLIP. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from f3prune.core.errors import InputError
from f3prune.quality.metrics._frames import Frames, check_frames


class ClipSim:
    """Cosine of CLIP's embeddings of a frame and of the prompt, mean over frames.

    Source:
        Wu et al. 2021, GODIVA, arXiv 2104.14806, section 4.2, which takes ViT-B/32. Some papers give a hundredfold.

    Args:
        directory: a CLIP as ``save_pretrained`` writes it (weights in safetensors, tokenizer, image processor). Nothing
            is downloaded.

    Raises:
        InputError: no such directory, or no CLIP in it.
    """

    def __init__(self, directory: Path) -> None:
        if not directory.is_dir():
            raise InputError(f"clipsim: there is no directory {directory}: give a local copy of a CLIP model")
        from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

        try:
            # The PIL processor is the one whose resizing CLIP was trained with, and needs no torchvision.
            self._images: Any = CLIPImageProcessorPil.from_pretrained(directory, local_files_only=True)
            self._tokens: Any = AutoTokenizer.from_pretrained(directory, local_files_only=True)
            self._model: Any = CLIPModel.from_pretrained(directory, local_files_only=True, use_safetensors=True).eval()
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error).strip().splitlines()[0][:200]
            raise InputError(
                f"clipsim: {directory} holds no whole CLIP model ({reason}): copy all its files"
            ) from error

    def __call__(self, video: Frames, prompt: str) -> float:
        """The mean cosine, in [-1, 1], of a video ``f h w 3`` and its prompt, which is cut to what CLIP reads.

        Raises:
            InputError: not a video.
        """
        import torch

        from f3prune.pipelines.video import to_bytes

        frames = list(to_bytes(check_frames(video)))
        pixels = self._images(images=frames, return_tensors="pt", input_data_format="channels_last")
        length = self._model.config.text_config.max_position_embeddings
        tokens = self._tokens(prompt, return_tensors="pt", truncation=True, max_length=length)
        with torch.inference_mode():
            seen = self._model.get_image_features(pixel_values=pixels["pixel_values"]).pooler_output
            said = self._model.get_text_features(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).pooler_output
            return float(torch.nn.functional.cosine_similarity(seen.double(), said.double()).mean())
