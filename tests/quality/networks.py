"""Tiny networks as TorchScript files."""

from __future__ import annotations

import warnings

import torch


def save_script(module, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(path))
    return path


class Distance(torch.nn.Module):
    def forward(self, a, b):
        return (a - b).abs().mean(dim=(1, 2, 3))


class VideoFeatures(torch.nn.Module):
    """Mean colour of the first and of the last frame: ``b 6``."""

    def forward(self, x):
        return torch.cat([x[:, :, 0].mean(dim=(2, 3)), x[:, :, -1].mean(dim=(2, 3))], dim=1)


class LikeI3D(torch.nn.Module):
    """Called as the published I3D; it refuses any other call."""

    def forward(self, x, rescale: bool = True, resize: bool = True, return_features: bool = False):
        if rescale or resize or not return_features or x.shape[3] != 224 or x.shape[4] != 224:
            raise ValueError("called in another way")
        return x.mean(dim=(2, 3, 4))


class LikeInception(torch.nn.Module):
    """Called as StyleGAN's Inception; it refuses any other call."""

    def forward(self, x, return_features: bool = False):
        if x.dtype != torch.uint8 or not return_features:
            raise ValueError("called in another way")
        return x.to(torch.float32).mean(dim=(2, 3))


class Flat(torch.nn.Module):
    def forward(self, x):
        return x.sum()


class Two(torch.nn.Module):
    def forward(self, a, b):
        return a, b
