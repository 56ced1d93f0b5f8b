"""A tiny random CogVideo, shared by tests."""

from collections.abc import Mapping

import torch

from f3prune.calibration import Masks, PruneConfig, calibrate, select_masks
from f3prune.families import family_of
from f3prune.models import CogVideo, CogVideoConfig
from f3prune.models.cogvideo.published import names

BEGIN = 39


def tiny(stage: int = 1, window: int = -1, layers: int = 4) -> CogVideo:
    """Random weights under which every channel matters; 16 tokens a frame."""
    config = CogVideoConfig(
        num_layers=layers,
        hidden_size=32,
        num_attention_heads=4,
        vocab_size=40,
        text_len=5,
        frame_len=16,
        frame_num=5 if stage == 2 else 3,
        stage=stage,
        window_size=window,
        max_sequence_length=528,
        additional_seqlen=64,
    )
    model = CogVideo(config)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        scale = 1.5 if "gate" in name else 0.25
        offset = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.data = offset + scale * torch.randn(parameter.shape, generator=generator)
    return model.eval().requires_grad_(False)


def inputs_of(model: CogVideo, batch: int = 2, seed: int = 1) -> dict[str, torch.Tensor]:
    """Random tokens, with padding in the first row's text."""
    family = family_of(model)
    inputs = family.synthetic_inputs(
        model, family.default_shape(model.config), batch, torch.Generator().manual_seed(seed)
    )
    inputs["text_mask"][0, :2] = 0
    return inputs


def masks_of(
    model: CogVideo, alpha: float, granularity: str = "layer", mode: str = "local", aggregate: str = "timesteps"
) -> Masks:
    """Masks from one sequence's frame mass."""
    calibration = calibrate(model, lambda: model(**inputs_of(model)))
    return select_masks(calibration, PruneConfig(alpha, granularity, aggregate, mode, score="aas"))


def published_state(model_state: Mapping[str, torch.Tensor], config: CogVideoConfig) -> dict[str, torch.Tensor]:
    """A dense model's tensors as a published checkpoint has them: the inverse of ``translate``."""
    return {
        published: torch.cat([model_state[name] for name in ours], dim=0) if len(ours) > 1 else model_state[ours[0]]
        for published, ours, _ in names(config)
    }
