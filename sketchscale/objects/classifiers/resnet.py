"""ResNet-18 for patches: eight blocks of two convolutions with a shortcut around each.

    stem ─ 2 blocks, W ─ 2 blocks, 2 W, half size ─ 2 blocks, 4 W ─ 2 blocks, 8 W ─ mean ─ linear ─▶ logits (L)

    stem "large"   conv 7 x 7, stride 2 ─ batch norm ─ ReLU ─ pool 3, stride 2     the paper's: 1/4 of the size
    stem "small"   conv 3 x 3, stride 1 ─ batch norm ─ ReLU                        for patches of some 32 px

Names of the weights are those of torchvision (`conv1`, `layer1.0.conv1`, `fc`), which SVETLANA's files use.

Source: He et al., Deep residual learning for image recognition (2016), table 1, option B; the small stem is that of its
section 4.2. Patches may have any size from 1 px.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["ResNet18"]


class ResNet18(nn.Module):
    """Residual network of 18 layers.

    Args:
        channels: of the patches, the object's mask included.
        width: filters of the first stage; 64 in the paper.
        stem: "large" or "small".

    >>> sum(p.numel() for p in ResNet18(3, 1000).parameters())
    11689512
    """

    def __init__(self, channels: int, classes: int, *, width: int = 64, stem: str = "large") -> None:
        super().__init__()
        large = stem == "large"
        kernel, stride = (7, 2) if large else (3, 1)
        self.conv1 = nn.Conv2d(channels, width, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if large else nn.Identity()
        self.layer1 = _stage(width, width, 1)
        self.layer2 = _stage(width, 2 * width, 2)
        self.layer3 = _stage(2 * width, 4 * width, 2)
        self.layer4 = _stage(4 * width, 8 * width, 2)
        self.fc = nn.Linear(8 * width, classes)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Return (n, L) logits of (n, C, s, s) patches."""
        x = self.pool(torch.relu(self.bn1(self.conv1(patches))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: torch.Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


class _Block(nn.Module):
    """relu(F(x) + x), where F is two 3 x 3 convolutions; a strided 1 x 1 convolution of x where the shape changes.

    The strided convolution is written as a plain one of every `stride`-th pixel, which is equivalent. In torch 2.13
    (oneDNN issue 6035, open) the backward pass of a strided 1 x 1 convolution writes beyond its memory if the input is
    channels-last with fewer than 8 channels, on processors with AVX2 and without AVX-512: the process crashes or
    continues with wrong numbers. tests/heap_check.py checks for it.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.stride = stride
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        seen = x[..., :: self.stride, :: self.stride]
        return torch.relu(self.bn2(self.conv2(y)) + self.downsample(seen))


def _stage(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_Block(before, after, stride), _Block(after, after, 1))
