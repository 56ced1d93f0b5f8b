"""Families are found by name and by class, without heavy imports."""

from __future__ import annotations

import inspect
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from diffusers.models.attention_processor import FusedAttnProcessor2_0
from torch import nn

from f3prune.core.errors import InputError, UnknownFamilyError
from f3prune.families import denoiser_component, family_of, registry
from f3prune.families.classes import denoiser_class
from f3prune.testing import tiny_denoiser


def test_the_supported_families() -> None:
    assert set(registry()) == {
        "animatediff", "modelscope", "latte", "svd", "i2vgen_xl", "cogvideox",
        "wan", "skyreels_v2", "ltx", "mochi", "hunyuan_video", "hunyuan_video15", "ltx2", "kandinsky5",
        "framepack", "allegro", "tune_a_video", "cogvideo", "wan_vace", "wan_animate", "chronoedit", "anyflow",
        "helios", "consisid", "easyanimate", "cosmos",
    }  # fmt: skip
    assert all(name == family.name for name, family in registry().items())
    assert all(family.notes and family.title for family in registry().values())


def test_listing_the_families_imports_nothing_heavy() -> None:
    code = (
        "import sys, f3prune.families as f; f.registry(); f.family_of('WanTransformer3DModel');"
        "print([m for m in ('torch', 'diffusers', 'numpy') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted(registry()))
def test_denoiser_class_exists_and_takes_the_declared_latents(name: str) -> None:
    family = registry()[name]
    forward = denoiser_class(family.denoiser_class).forward
    assert family.latents in inspect.signature(forward).parameters


def test_family_of_class_name_instance_and_subclass() -> None:
    latte = registry()["latte"]
    denoiser = tiny_denoiser("latte")
    assert family_of("LatteTransformer3DModel") is latte
    assert family_of(denoiser) is latte
    my_latte = type("MyLatte", (type(denoiser),), {})
    assert family_of(my_latte.__new__(my_latte)) is latte
    wrapper = nn.Module()
    wrapper._orig_mod = denoiser  # as torch.compile wraps
    assert family_of(wrapper) is latte


def test_unknown_family_names_the_class_the_supported_ones_and_the_page() -> None:
    with pytest.raises(UnknownFamilyError) as caught:
        family_of(nn.Linear(1, 1))
    message = str(caught.value)
    assert message.startswith("Linear ")
    assert all(family.denoiser_class in message for family in registry().values())
    assert "docs/families.md" in message
    assert "\n" not in message


def test_denoiser_component() -> None:
    assert denoiser_component(SimpleNamespace(transformer=object())) == "transformer"
    assert denoiser_component(SimpleNamespace(unet=object(), transformer=None)) == "unet"
    with pytest.raises(InputError, match="SimpleNamespace has no transformer and no unet"):
        denoiser_component(SimpleNamespace(vae=object()))


def test_a_denoiser_without_temporal_attention_is_refused() -> None:
    denoiser = tiny_denoiser("latte")
    denoiser.temporal_transformer_blocks = nn.ModuleList()
    with pytest.raises(InputError, match="nothing to prune"):
        family_of(denoiser).find_sites(denoiser)


@pytest.mark.parametrize("variant", ["wan", "cogvideox", "latte"])
def test_fused_projections_are_refused_until_they_are_undone(variant: str) -> None:
    denoiser = tiny_denoiser(variant)
    family = family_of(denoiser)
    before = family.find_sites(denoiser)
    if variant == "latte":
        site = denoiser.get_submodule(before[0].name)
        site.fuse_projections()
        processor = site.processor
        site.set_processor(FusedAttnProcessor2_0())
    else:
        denoiser.fuse_qkv_projections()
    with pytest.raises(InputError, match="unfuse_qkv_projections"):
        family.find_sites(denoiser)
    if variant == "latte":
        site.set_processor(processor)
    else:
        denoiser.unfuse_qkv_projections()
    assert family.find_sites(denoiser) == before


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_compiled_denoiser_is_called_one() -> None:
    denoiser = tiny_denoiser("wan")
    family, before = family_of(denoiser), family_of(denoiser).find_sites(denoiser)
    compiled = torch.compile(denoiser)
    with pytest.raises(InputError, match=r"is compiled.*its _orig_mod"):
        family.find_sites(compiled)
    assert family.find_sites(compiled._orig_mod) == before
