"""The networks from maps to images: a generator and its critics. The network from images to maps is a U-Net.

    Generator   maps S (h, v, m) and noise -> image in [-1, 1]. It starts from S at 1/32 of the size and doubles five
                times. Before every convolution the features are normalised, then scaled and shifted by the output of a
                small network on S, so that S determines the layout at every level (spatially adaptive normalisation).
                Noise enters with S at every level: `noise` numbers per image, the same at each of its pixels, and
                `local_noise` numbers per pixel, of which a coarser level takes one in each of its own pixels.
    Critic      image or maps -> a grid of scores, each of a patch of 70 px; spectral norm, no normalisation.

Source: SPADE (Park et al. 2019), OASIS (Schoenfeld et al. 2021), PatchGAN (Isola et al. 2017), from their papers; the
sizes of "Points to synthetic microscopy" are `GeneratorConfig(width=32)` and `Critic(channels)`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from sketchscale.errors import InputError

__all__ = ["MAPS", "Critic", "Generator", "GeneratorConfig", "settle_norms"]

MAPS = 3
"""Channels of S: h, v, m."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorConfig:
    """Shape of a generator.

    Attributes:
        channels: of the image.
        width: features of the last level; 32 in the paper, 4 to 8 on a laptop.
        noise: numbers drawn for each image, for what all of it shares, such as its stain.
        local_noise: numbers drawn for each pixel, for textures; 0 in the paper's code.
        hidden: features between S and the scales and shifts; 128 in the paper.
    """

    channels: int = 3
    width: int = 8
    noise: int = 1
    local_noise: int = 0
    hidden: int = 32

    def __post_init__(self) -> None:
        if min(self.channels, self.width, self.noise, self.hidden) < 1 or self.local_noise < 0:
            raise InputError.of(
                found=f"{self}",
                expected="numbers of at least 1, local_noise of at least 0",
                fix="start from the defaults",
            )

    @property
    def stride(self) -> int:
        """Sizes are multiples of this, px."""
        return 32

    @property
    def inputs(self) -> int:
        """Number of channels of S and noise together."""
        return MAPS + self.noise + self.local_noise

    def draw_noise(self, shape: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """Return the noise of one image of a shape (y, x): normal numbers, float32.

        Returns:
            (noise,) without local noise, else (noise + local_noise, y, x), of which the first ones are constant.

        >>> GeneratorConfig(noise=2, local_noise=1).draw_noise((4, 6), np.random.default_rng(0)).shape
        (3, 4, 6)
        """
        shared = rng.standard_normal(self.noise).astype(np.float32)
        if not self.local_noise:
            return shared
        local = rng.standard_normal((self.local_noise, *shape)).astype(np.float32)
        return np.concatenate([np.broadcast_to(shared[:, None, None], (self.noise, *shape)), local])


class _Spade(nn.Module):
    """Normalise each feature over the image, then scale and shift it depending on S."""

    def __init__(self, features: int, config: GeneratorConfig) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(features)
        self.shared = nn.Conv2d(config.inputs, config.hidden, 3, padding=1)
        self.scale = nn.Conv2d(config.hidden, features, 3, padding=1)
        self.shift = nn.Conv2d(config.hidden, features, 3, padding=1)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        seen = functional.interpolate(condition, size=x.shape[-2:], mode="nearest")
        seen = functional.relu(self.shared(seen))
        return cast(torch.Tensor, self.norm(x) * (1 + self.scale(seen)) + self.shift(seen))


class _Block(nn.Module):
    """Two convolutions with a shortcut, each after a spatially adaptive normalisation."""

    def __init__(self, inputs: int, outputs: int, config: GeneratorConfig) -> None:
        super().__init__()
        middle = min(inputs, outputs)
        self.first, self.second = _Spade(inputs, config), _Spade(middle, config)
        self.conv_1 = spectral_norm(nn.Conv2d(inputs, middle, 3, padding=1))
        self.conv_2 = spectral_norm(nn.Conv2d(middle, outputs, 3, padding=1))
        self.skip = _Spade(inputs, config) if inputs != outputs else None
        self.conv_skip = spectral_norm(nn.Conv2d(inputs, outputs, 1, bias=False)) if inputs != outputs else None

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        y = self.conv_1(functional.leaky_relu(self.first(x, condition), 0.2))
        y = self.conv_2(functional.leaky_relu(self.second(y, condition), 0.2))
        if self.skip is not None and self.conv_skip is not None:
            x = self.conv_skip(self.skip(x, condition))
        return cast(torch.Tensor, x + y)


class Generator(nn.Module):
    """Network from maps to images; see the module."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * m for m in (16, 16, 16, 8, 4, 2, 1)]
        self.start = nn.Conv2d(config.inputs, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList([_Block(a, b, config) for a, b in itertools.pairwise(widths)])
        self.head = nn.Conv2d(widths[-1], config.channels, 3, padding=1)
        _start_small(self)

    def forward(self, maps: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return images (n, channels, y, x) in [-1, 1].

        Args:
            maps: (n, 3, y, x), sides multiples of 32.
            noise: as `GeneratorConfig.draw_noise` gives it for the size of the maps, with a leading axis n.
        """
        everywhere = noise if noise.ndim == 4 else noise[..., None, None]
        condition = torch.cat([everywhere.expand(-1, -1, *maps.shape[-2:]), maps], 1)
        x = self.start(functional.interpolate(condition, scale_factor=1 / self.config.stride, mode="nearest"))
        for level, block in enumerate(self.blocks):
            x = functional.interpolate(x, scale_factor=2, mode="nearest") if level else x
            x = block(x, condition)
        return torch.tanh(self.head(functional.leaky_relu(x, 0.2)))


class Critic(nn.Module):
    """Network that scores how real each patch of 70 px looks.

    Args:
        width: features of the first level; 64 in the paper.
    """

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        widths = (channels, width, 2 * width, 4 * width, 8 * width)
        layers: list[nn.Module] = []
        for level, (a, b) in enumerate(itertools.pairwise(widths)):
            layers += [spectral_norm(nn.Conv2d(a, b, 4, stride=2 if level < 3 else 1, padding=1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(widths[-1], 1, 4, padding=1)))
        _start_small(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, 1, y', x') scores of (n, channels, y, x)."""
        return cast(torch.Tensor, self.layers(x))


def settle_norms(network: nn.Module) -> None:
    """Set the singular vectors of every spectral norm exactly; in training they are only approximations."""
    for module in network.modules():
        for norms in getattr(module, "parametrizations", {}).values():
            u, _, v = torch.linalg.svd(norms.original.detach().flatten(1), full_matrices=False)
            norms[0]._u.copy_(u[:, 0])
            norms[0]._v.copy_(v[0])


def _start_small(network: nn.Module) -> None:
    """Draw weights of convolutions with standard deviation 0.02, as the paper; set biases to 0."""
    for name, value in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(value)
        elif value.ndim == 4:
            nn.init.normal_(value, 0, 0.02)
