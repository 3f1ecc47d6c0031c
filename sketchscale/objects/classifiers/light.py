"""SVETLANA's light networks: two to four convolutions, a mean over the patch, a linear layer.

    2-D   depth x [ conv k x k, padding 1 ─ ReLU ─ batch norm ─ pool 2 ] ─ mean ─ linear ─▶ logits (L)
    3-D   conv 7, stride 2, no bias ─ ReLU ─ batch norm ─ pool 2, padding 1
          ─ [ conv 3, twice as wide ─ ReLU ─ batch norm ─ pool 2 ] depth - 1 times ─ mean ─ linear ─▶ logits (L)

144 C + 17 L + 2400 parameters at depth 2 and kernel 3: 3,027 for RGB with its mask (C = 4) and three classes. Padding
stays 1 for kernel 5, as in SVETLANA, so each such layer removes a pixel on every side. Names of the weights are those
of SVETLANA's files (`cnn_layers`, `fc`). The network returns logits, because cross entropy contains the softmax; a
second softmax would bound the loss from below.

Source: SVETLANA (Cazorla et al., Scientific Reports 14 (2024) 11604); at depth 2 its 3-D networks, too.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["LightNet", "smallest_side"]


class LightNet(nn.Module):
    """A light network.

    Args:
        channels: of the patches, the object's mask included.
        depth: number of convolutions.
        kernel: of the convolutions in 2-D; 7 and 3 in 3-D.
        width: filters of each convolution in 2-D; of the first in 3-D, doubled by each following one.

    >>> sum(p.numel() for p in LightNet(4, 3).parameters())
    3027
    """

    def __init__(
        self, channels: int, classes: int, *, depth: int = 2, kernel: int = 3, width: int = 16, dim: int = 2
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(depth):
            wide = width if dim == 2 else width * 2**i
            if dim == 2:
                layers += [nn.Conv2d(width if i else channels, width, kernel, padding=1)]
                layers += [nn.ReLU(), nn.BatchNorm2d(width), nn.MaxPool2d(2)]
            elif i:
                layers += [nn.Conv3d(wide // 2, wide, 3, padding=1)]
                layers += [nn.ReLU(), nn.BatchNorm3d(wide), nn.MaxPool3d(2)]
            else:
                layers += [nn.Conv3d(channels, width, 7, stride=2, padding=3, bias=False)]
                layers += [nn.ReLU(), nn.BatchNorm3d(width), nn.MaxPool3d(2, padding=1)]
        self.cnn_layers = nn.Sequential(*layers)
        self.fc = nn.Sequential(nn.Linear(wide, classes))

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Return (n, L) logits of (n, C, [s,] s, s) patches with s at least `smallest_side`."""
        features = self.cnn_layers(patches)
        logits: torch.Tensor = self.fc(features.mean(dim=tuple(range(2, features.ndim))))
        return logits


def smallest_side(depth: int, kernel: int, dim: int = 2) -> int:
    """Return the smallest side of patches, px; smaller ones vanish in the pooling.

    >>> smallest_side(2, 3), smallest_side(2, 5), smallest_side(4, 5), smallest_side(3, 3, dim=3)
    (4, 10, 46, 11)
    """
    side = 1
    if dim == 2:
        for _ in range(depth):
            side = 2 * side + kernel - 3
        return side
    # The first convolution leaves (s + 1) // 2 pixels, its padded pool half of them and one, each later pool half.
    while ((side + 1) // 2 // 2 + 1) >> (depth - 1) == 0:
        side += 1
    return side
