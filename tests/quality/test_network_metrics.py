"""Metrics that run a network which the user names: LPIPS, CLIPSIM, features of Fréchet distances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from clips import noisy, shifting
from networks import Distance, Flat, LikeI3D, LikeInception, Two, VideoFeatures, save_script
from safetensors.torch import save_file
from torch import nn

from f3prune.core.errors import InputError
from f3prune.quality.metrics._clip import ClipSim
from f3prune.quality.metrics._lpips import Lpips
from f3prune.quality.metrics._networks import ImageTorchScript, VideoTorchScript, frame_rows, video_rows
from zoo_training.digits_image.build_tokenizer import build_tokenizer


def alexnet():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2),
    )


def test_lpips_of_a_script(tmp_path):
    lpips = Lpips(save_script(Distance(), tmp_path / "lpips.pt"))
    video = np.full((3, 8, 8, 3), 0.5, np.float32)
    assert lpips(video, video) == 0.0
    assert lpips(video, video + np.float32(0.25)) == pytest.approx(0.5)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_lpips_of_alexnet_weights_equals_torchmetrics(tmp_path, monkeypatch, suffix):
    from torchmetrics.functional.image import lpips as published

    features = alexnet()
    state = {f"features.{key}": value for key, value in features.state_dict().items()}
    path = tmp_path / f"alexnet{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    # Only where torchmetrics gets its backbone is replaced: torchvision would download one.
    monkeypatch.setattr(published, "_get_tv_model_features", lambda *_: features)
    video = shifting(frames=3)
    other = noisy(video)
    a, b = (torch.from_numpy(v.transpose(0, 3, 1, 2) * 2 - 1) for v in (video, other))
    with torch.no_grad():
        expected = float(published._LPIPS(net="alex")(a, b).mean())
    lpips = Lpips(path)
    assert lpips(video, other) == pytest.approx(expected, rel=1e-4)
    assert lpips(video, video) == 0.0
    with pytest.raises(InputError, match="at least 31"):
        lpips(video[:, :30], video[:, :30])


def test_lpips_names_what_it_cannot_use(tmp_path):
    with pytest.raises(InputError, match=r"no file .*alexnet-owt"):
        Lpips(tmp_path / "absent.pth")
    (tmp_path / "broken.pth").write_bytes(b"not weights")
    with pytest.raises(InputError, match="tensors alone"):
        Lpips(tmp_path / "broken.pth")
    torch.save({"other": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="does not hold the weights of torchvision's AlexNet"):
        Lpips(tmp_path / "other.pth")
    torch.save(torch.ones(1), tmp_path / "tensor.pth")
    with pytest.raises(InputError, match="holds a Tensor"):
        Lpips(tmp_path / "tensor.pth")
    video = shifting()
    with pytest.raises(InputError, match="returns a tuple"):
        Lpips(save_script(Two(), tmp_path / "two.pt"))(video, video)


def test_a_plain_video_network_gets_minus_one_to_one_at_its_own_size(tmp_path):
    network = VideoTorchScript(save_script(VideoFeatures(), tmp_path / "plain.pt"))
    video = np.zeros((4, 8, 12, 3), np.float32)
    video[-1] = (1.0, 0.5, 0.0)
    assert video_rows(network, video) == pytest.approx(np.array([[-1, -1, -1, 1, 0, -1]]))
    assert network.features(np.stack([video, video])).shape == (2, 6)


def test_i3d_and_inception_are_called_as_published(tmp_path):
    video = np.full((4, 8, 12, 3), 0.5, np.float32)
    i3d = VideoTorchScript(save_script(LikeI3D(), tmp_path / "i3d.pt"))
    assert video_rows(i3d, video) == pytest.approx(np.zeros((1, 3)), abs=1e-6)
    inception = ImageTorchScript(save_script(LikeInception(), tmp_path / "inception.pt"))
    assert frame_rows(inception, video) == pytest.approx(np.full((4, 3), 128.0))


def test_what_is_no_torchscript_or_no_such_network_is_named(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "weights.pt")
    (tmp_path / "text.pt").write_text("hello")
    for name in ("weights.pt", "text.pt"):
        with pytest.raises(InputError, match=f"{name} is not a TorchScript file"):
            VideoTorchScript(tmp_path / name)
    with pytest.raises(InputError, match="there is no file"):
        ImageTorchScript(tmp_path / "absent.pt")
    video = shifting()
    with pytest.raises(InputError, match=r"returns features of shape \(\)"):
        video_rows(VideoTorchScript(save_script(Flat(), tmp_path / "flat.pt")), video)
    with pytest.raises(InputError, match=r"fails on an input of shape \(1, 3, 5, 48, 64\)"):
        video_rows(VideoTorchScript(save_script(Distance(), tmp_path / "pair.pt")), video)


@pytest.fixture
def clip_directory(tmp_path):
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    tokenizer = build_tokenizer()
    shared = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 12, **shared, **special}
    vision = {"image_size": 32, "patch_size": 8, **shared}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(tmp_path / "clip")
    tokenizer.save_pretrained(tmp_path / "clip")
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32).save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


def test_clipsim_is_the_mean_cosine_over_frames(clip_directory):
    clipsim = ClipSim(clip_directory)
    video = shifting()
    frames = [clipsim(frame[None], "a 3") for frame in video]
    assert clipsim(video, "a 3") == pytest.approx(np.mean(frames), abs=1e-5)
    assert -1.0 <= clipsim(video, "a 3 " * 50) <= 1.0
    assert clipsim(video, "a 3") != clipsim(video, "a 7")


def test_clipsim_names_what_is_no_clip(tmp_path, clip_directory):
    with pytest.raises(InputError, match="there is no directory"):
        ClipSim(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no whole CLIP model"):
        ClipSim(tmp_path / "empty")
    (clip_directory / "model.safetensors").unlink()
    with pytest.raises(InputError, match="holds no whole CLIP model"):
        ClipSim(clip_directory)
