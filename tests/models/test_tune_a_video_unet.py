"""What is known of Tune-A-Video's UNet without the original: symmetries, inflation, and what is refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from f3prune.core.errors import InputError
from f3prune.core.weights import randomize_weights
from f3prune.models import TuneAVideoUNet
from f3prune.models.tune_a_video._attention import SparseCausalAttention
from f3prune.models.tune_a_video._transformer import VideoTransformerBlock
from f3prune.pipelines.loading import load_denoiser
from f3prune.pipelines.sources import resolve

IMAGE = {
    "sample_size": 4,
    "block_out_channels": (8, 16),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 12,
    "attention_head_dim": 2,
}
VIDEO = {
    **IMAGE,
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
}


def image_unet(**changes):
    unet = UNet2DConditionModel(**{**IMAGE, **changes})
    randomize_weights(unet)
    return unet.eval()


def video_unet(**changes):
    unet = TuneAVideoUNet(**{**VIDEO, **changes})
    randomize_weights(unet)
    return unet.eval()


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_temporal_attention_knows_no_order():
    block = VideoTransformerBlock(8, 2, 12)
    randomize_weights(block)
    frames, order = draw(6, 5, 8), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(block.attn_temp(frames)[:, order], block.attn_temp(frames[:, order]), atol=1e-6, rtol=0)


def test_sparse_causal_attention_reads_the_first_and_the_former_frame():
    attention = SparseCausalAttention(8, 2)
    randomize_weights(attention)
    tokens = draw(4, 6, 8).requires_grad_()
    for frame, read in enumerate([{0}, {0}, {0, 1}, {0, 2}]):
        queries = attention(tokens, 4)[frame].sum()
        moved = torch.autograd.grad(queries, tokens)[0].abs().amax((1, 2)).nonzero().flatten()
        assert set(moved.tolist()) == read | {frame}, "its own tokens are its queries"
    # A frame's keys are not its own: with the queries' part of the gradient gone, so is its own.
    attention.to_q.weight.data.zero_()
    moved = torch.autograd.grad(attention(tokens, 4)[3].sum(), tokens)[0].abs().amax((1, 2)).nonzero().flatten()
    assert moved.tolist() == [0, 2]


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("linear", [False, True])
def test_one_frame_of_an_inflated_model_is_the_image(levels, linear):
    image = image_unet(
        block_out_channels=(8, 16, 24)[:levels],
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")[3 - levels :],
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")[:levels],
        use_linear_projection=linear,
        attention_head_dim=(2, 4, 2)[:levels],
    )
    sample, text = draw(2, 4, 8, 12), draw(2, 5, 12, seed=1)
    video = TuneAVideoUNet.from_2d(image)
    with torch.no_grad():
        expected = image(sample, 321, text).sample
        for timestep in (321, torch.tensor(321), torch.tensor([321, 321])):
            ours = video(sample.unsqueeze(2), timestep, text).sample.squeeze(2)
            torch.testing.assert_close(ours, expected, atol=2e-5, rtol=0)
        original = TuneAVideoUNet.from_2d(image, zero_bias=False)
        assert (original(sample.unsqueeze(2), 321, text).sample.squeeze(2) - expected).abs().max() > 1e-3
    assert not video.training
    image.conv_in.weight.data.zero_()
    assert video.conv_in.weight.abs().max() > 0, "the inflated model has tensors of its own"


def test_at_the_size_of_stable_diffusion_the_numbers_are_the_published_ones():
    with torch.device("meta"):
        image, video = UNet2DConditionModel(cross_attention_dim=768).state_dict(), TuneAVideoUNet().state_dict()
    assert all(video[name].shape == tensor.shape for name, tensor in image.items())
    new = {name: tensor for name, tensor in video.items() if name not in image}
    assert (len(image), len(new)) == (686, 112)
    assert sum(tensor.numel() for tensor in new.values()) == 49_599_040
    assert sum(tensor.numel() for tensor in video.values()) == 909_120_004
    assert all(".attn_temp." in name or ".norm_temp." in name for name in new)


def test_frames_meet_in_the_group_norms_too():
    """No attention between frames, and yet they are not independent."""
    unet = video_unet()
    sample, text = draw(1, 4, 2, 4, 4), draw(1, 5, 12, seed=1)
    with torch.no_grad():
        alone = unet(sample[:, :, :1], 1, text).sample
        together = unet(torch.cat([sample[:, :, :1]] * 2, 2), 1, text).sample
        different = unet(sample, 1, text).sample
    torch.testing.assert_close(together[:, :, 0], alone[:, :, 0], atol=1e-5, rtol=0)
    assert (different[:, :, 0] - alone[:, :, 0]).abs().max() > 1e-3


def test_saved_and_loaded_is_the_same(tmp_path):
    unet = video_unet()
    unet.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["_class_name"] == "TuneAVideoUNet"
    sample, text = draw(1, 4, 3, 4, 4), draw(1, 5, 12, seed=1)
    with torch.no_grad():
        (expected,) = unet(sample, 7, text, return_dict=False)
        for loaded in (TuneAVideoUNet.from_pretrained(tmp_path), TuneAVideoUNet.from_published(tmp_path)):
            assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in unet.state_dict().items())
            torch.testing.assert_close(loaded.eval()(sample, 7, text).sample, expected, atol=1e-5, rtol=0)


def test_a_published_checkpoint_is_read_by_its_names(tmp_path):
    unet = video_unet()
    config = {key: value for key, value in unet.config.items() if not key.startswith("_")}
    config = {**config, "_class_name": "UNet3DConditionModel", "_diffusers_version": "0.11.1"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"no \.safetensors weights"):
        resolve(str(tmp_path))
    save_file(unet.state_dict(), tmp_path / "diffusion_pytorch_model.safetensors")
    source = resolve(str(tmp_path))
    assert source.class_name == "TuneAVideoUNet", "its config.json says as ModelScope's does"
    loaded = load_denoiser(source, torch.bfloat16)
    assert type(loaded) is TuneAVideoUNet
    assert loaded.dtype == torch.bfloat16
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()

    weights = tmp_path / "diffusion_pytorch_model.bin"
    torch.save(unet.state_dict(), weights)
    loaded = TuneAVideoUNet.from_published(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in unet.state_dict().items())
    torch.save({"weights": print}, weights)
    with pytest.raises(InputError, match="holds more than tensors"):
        TuneAVideoUNet.from_published(tmp_path)
    torch.save([1], weights)
    with pytest.raises(InputError, match="not a state dict"):
        TuneAVideoUNet.from_published(tmp_path)
    weights.unlink()
    with pytest.raises(InputError, match=r"has no diffusion_pytorch_model\.safetensors"):
        TuneAVideoUNet.from_published(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_frames": 3, "fps": 8}))
    with pytest.raises(InputError, match="fps, num_frames"):
        TuneAVideoUNet.from_published(tmp_path)


def test_every_tensor_that_does_not_fit_is_named(tmp_path):
    image_unet().save_pretrained(tmp_path)
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    state["conv_out.bias"] = torch.zeros(5)
    state["of_another_model"] = torch.zeros(1)
    del state["conv_in.weight"], state["conv_in.bias"]
    save_file(state, weights)
    with pytest.raises(InputError) as caught:
        TuneAVideoUNet.from_2d(tmp_path)
    message = str(caught.value)
    for part in (
        "4 tensors of", "conv_in.weight is missing", "conv_in.bias is missing",
        "of_another_model is not one of this model's", "conv_out.bias is 5, expected 4",
    ):  # fmt: skip
        assert part in message
    assert "\n" not in message


def test_an_image_models_directory(tmp_path):
    image = image_unet()
    image.save_pretrained(tmp_path / "whole")
    image.save_pretrained(tmp_path / "shards", max_shard_size="60KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    for folder in ("whole", "shards"):
        inflated = TuneAVideoUNet.from_2d(tmp_path / folder).state_dict()
        assert all(torch.equal(inflated[name], tensor) for name, tensor in image.state_dict().items())
    shutil.rmtree(tmp_path / "shards")
    image.save_pretrained(tmp_path / "pickle", safe_serialization=False)
    with pytest.raises(InputError, match=r"is a pickle.*expected diffusion_pytorch_model\.safetensors"):
        TuneAVideoUNet.from_2d(tmp_path / "pickle")
    (tmp_path / "whole" / "diffusion_pytorch_model.safetensors").write_bytes(b"short")
    with pytest.raises(InputError, match="cannot be read"):
        TuneAVideoUNet.from_2d(tmp_path / "whole")


@pytest.mark.parametrize("middle", ["UNetMidBlock2DCrossAttn", None, "absent"])
def test_the_middle_block_of_an_image_configuration(tmp_path, middle):
    image_unet().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["mid_block_type"] = middle
    if middle == "absent":
        del config["mid_block_type"]
    path.write_text(json.dumps(config))
    if middle is None:
        with pytest.raises(InputError, match="mid_block_type is None"):
            TuneAVideoUNet.from_2d(tmp_path)
    else:
        assert TuneAVideoUNet.from_2d(tmp_path).config.mid_block_type == "UNetMidBlock3DCrossAttn"


def test_configurations_that_have_no_counterpart_are_refused(tmp_path):
    with pytest.raises(InputError, match="encoder_hid_dim=4"):
        TuneAVideoUNet.from_2d(image_unet(encoder_hid_dim=4, encoder_hid_dim_type="text_proj"))
    with pytest.raises(InputError, match=r"expected a UNet2DConditionModel"):
        TuneAVideoUNet.from_2d(video_unet())
    with pytest.raises(InputError) as caught:
        video_unet(act_fn="mish", dual_cross_attention=True, attention_head_dim=3, up_block_types=("UpBlock3D",))
    for part in ("act_fn is 'mish'", "dual_cross_attention is True", "attention_head_dim is [3, 3]", "up_block_types"):
        assert part in str(caught.value)


def test_recomputing_activations_gives_the_same_gradients():
    sample, text = draw(1, 4, 2, 4, 4), draw(1, 5, 12, seed=1)
    gradients = []
    for saving in (False, True):
        unet = video_unet().train()
        if saving:
            unet.enable_gradient_checkpointing()
        unet(sample, 7, text).sample.square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in unet.parameters()]))
    torch.testing.assert_close(*gradients, atol=1e-7, rtol=1e-5)
