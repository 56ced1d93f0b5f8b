"""Every video denoiser of the installed diffusers is supported, or refused by name with the reason."""

from __future__ import annotations

import json
import re
from pathlib import Path

import diffusers
import pytest
from torch import nn

from f3prune.core.errors import InputError, UnknownFamilyError
from f3prune.families import UNSUPPORTED, family_of, registry
from f3prune.pipelines.sources import ModelSource
from f3prune.testing import tiny_denoiser

NO_VIDEO = {
    "AceStepTransformer1DModel", "AudioLDM2UNet2DConditionModel", "AuraFlowTransformer2DModel",
    "BriaFibo2Transformer2DModel",
    "BriaFiboTransformer2DModel", "BriaTransformer2DModel", "ChromaTransformer2DModel",
    "CogView3PlusTransformer2DModel", "CogView4Transformer2DModel", "DiTTransformer2DModel",
    "DreamLiteTransformer2DModel", "DreamLiteUNetModel", "ErnieImageTransformer2DModel", "Flux2Transformer2DModel",
    "Flux3Transformer2DModel", "FluxTransformer2DModel", "GlmImageTransformer2DModel", "HiDreamImageTransformer2DModel",
    "HunyuanDiT2DControlNetModel", "HunyuanDiT2DModel", "HunyuanDiT2DMultiControlNetModel",
    "HunyuanImageTransformer2DModel", "Ideogram4Transformer2DModel", "JoyImageEditPlusTransformer3DModel",
    "JoyImageEditTransformer3DModel", "Kandinsky3UNet", "Krea2Transformer2DModel", "LongCatAudioDiTTransformer",
    "LongCatAudioDiTVae", "LongCatImageTransformer2DModel", "Lumina2Transformer2DModel", "LuminaNextDiT2DModel",
    "MiniMaxMusic3Transformer1DModel", "NucleusMoEImageTransformer2DModel", "OmniGenTransformer2DModel",
    "OvisImageTransformer2DModel", "PRXTransformer2DModel", "PixArtTransformer2DModel", "PriorTransformer",
    "QwenImage21Transformer2DModel", "QwenImageTransformer2DModel", "RFD4ProteinaTransformer", "SD3Transformer2DModel",
    "SanaTransformer2DModel", "StableAudio3DiTModel", "StableAudioDiTModel", "StableCascadeUNet", "Transformer2DModel",
    "TransformerTemporalModel", "UNet1DModel", "UNet2DConditionModel", "UNet2DModel", "UNetControlNetXSModel",
    "ZImageTransformer2DModel",
}  # fmt: skip
"""Denoisers of images, sound, or anything but video; parts of denoisers."""


def exported() -> set[str]:
    """Every class of diffusers whose name is that of a denoiser; its pipelines are not imported, which takes long."""
    named = {name for name in dir(diffusers) if re.search("Transformer|UNet|DiT", name) and "Pipeline" not in name}
    return {name for name in named if issubclass(getattr(diffusers, name), diffusers.ModelMixin)}


def test_every_video_denoiser_is_supported_or_refused_with_the_reason() -> None:
    supported = {family.denoiser_class for family in registry().values()} - {"CogVideo", "TuneAVideoUNet"}
    assert not supported & UNSUPPORTED.keys(), "supported by now: take it out of UNSUPPORTED"
    assert exported() == supported | UNSUPPORTED.keys() | NO_VIDEO


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_the_refusal_names_the_class_and_the_reason(name: str) -> None:
    with pytest.raises(UnknownFamilyError) as caught:
        family_of(name)
    assert str(caught.value).startswith(f"{name} is not supported: {UNSUPPORTED[name]}; ")
    assert "\n" not in str(caught.value)


def test_a_subclass_of_a_refused_class_is_refused_for_its_reason() -> None:
    mine = type("Mine", (type("SanaVideoTransformer3DModel", (nn.Module,), {}),), {})
    with pytest.raises(UnknownFamilyError, match=r"^SanaVideoTransformer3DModel is not supported: .* linear"):
        family_of(mine())


def test_a_configuration_that_cannot_be_pruned_is_refused(tmp_path: Path) -> None:
    """Before the weights are read, and where sites are looked for."""
    family = registry()["kandinsky5"]
    config = {"_class_name": family.denoiser_class, "attention_type": "nabla"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    reason = r"this Kandinsky5Transformer3DModel cannot be pruned: its NABLA attention"
    with pytest.raises(InputError, match=reason):
        ModelSource(str(tmp_path), tmp_path, "denoiser", family.denoiser_class).family()
    denoiser = tiny_denoiser("kandinsky5")
    denoiser.register_to_config(attention_type="nabla")
    with pytest.raises(InputError, match=reason):
        family.find_sites(denoiser)


def test_other_classes_are_told_apart_by_their_library() -> None:
    version = diffusers.__version__
    with pytest.raises(UnknownFamilyError, match=f"FluxTransformer2DModel of diffusers {version} .* no video denoiser"):
        family_of("FluxTransformer2DModel")
    with pytest.raises(UnknownFamilyError, match=f"SoraModel is a class of neither diffusers {version} nor f3prune"):
        family_of("SoraModel")


def test_an_image_unet_beside_a_motion_adapter_is_animatediff(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel"}))
    source = ModelSource(str(tmp_path), tmp_path, "pipeline", "AnimateDiffPipeline")
    with pytest.raises(UnknownFamilyError, match=r"^AnimateDiffPipeline in .*: UNet2DConditionModel of diffusers"):
        source.family()
    (tmp_path / "motion_adapter").mkdir()
    assert source.family().name == "animatediff"
