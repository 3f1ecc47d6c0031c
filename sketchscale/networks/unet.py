"""The default network: a residual U-Net of the Cellpose family, at any width, with or without the style vector.

    in ─▶ down 0 ─▶ down 1 ─▶ down 2 ─▶ down 3        a down block: four convolutions, two residual sums; 2 x 2 max-pool
             │         │         │        │           between levels
    out ◀─ up 0 ◀── up 1 ◀─── up 2 ◀──── up 3         an up block: the same, with the skip added after the first

A *unit* is batch norm, ReLU, convolution 3 x 3. The style vector is the tile-wide mean of the deepest map, of length 1,
and enters the last three units of every up block through a linear layer. It makes each output depend on the whole tile,
so results depend on the tiling: off by default, and available for weights that were trained with it.

With style, widths (32, 64, 128, 256) and padding "zeros" this is the network of Cellpose 1 to 3 and of Omnipose before
1.0, with "reflect" that of later releases, to the last digits; peers.py translates the names. In three dimensions the
convolutions are 3 x 3 x 3 and pooling is 2 x 2 x 2. Where sections are farther apart than pixels (`anisotropy`), the
first levels work section by section, with 1 x 3 x 3 and 1 x 2 x 2, until pixels are about as large as sections are
apart (as in nnU-Net, Isensee et al. 2021): one level for a ratio of 2, two for 4. So sizes along z are that much
smaller: stride, tiles and patches (`NetworkConfig.sizes`).

Guarantees: `stride` divides every tile origin and size; an output pixel depends on input pixels at most `context` px
away and on nothing else (without style).

`UNet.adapt` starts from weights of a U-Net whose widths, levels and dimensions agree. What lies between the first and
the last convolution is kept as it is:

    channels   more      the new channels have weight 0, so outputs stay the same until training changes them
               fewer     as if the missing channels were 0 everywhere; their constant contribution goes into the bias;
                         exact under "reflect"; under "zeros" and without style, farther from the tile's border than
                         the network's context
    style      added: linear layers of 0, the same outputs; removing it is refused
    padding    weights are kept, outputs near the border differ
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.nn import functional

from sketchscale.errors import InputError

__all__ = ["NetworkConfig", "UNet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """Shape of a network.

    Attributes:
        name: key of the NETWORKS table.
        channels: of the input image.
        widths: features per level; half of the papers' (32, 64, 128, 256) costs a quarter of the time.
        outputs: flow y, flow x, distance, and outputs that a loss adds; in three dimensions flow z comes first.
        style: whether a vector of the whole tile enters every level (see the module).
        padding: of convolutions beyond the tile: "zeros", or "reflect", its mirror image, which needs tiles of at least
            twice the stride.
        dim: 2 for (y, x), 3 for (z, y, x).
        anisotropy: in three dimensions, how many times sections are as far apart as pixels, in the images that the
            network is trained on.
    """

    name: str = "unet"
    channels: int = 1
    widths: tuple[int, ...] = (16, 32, 64, 128)
    outputs: int = 3
    style: bool = False
    padding: Literal["zeros", "reflect"] = "zeros"
    dim: Literal[2, 3] = 2
    anisotropy: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(int(w) for w in self.widths))
        if self.channels < 1 or self.outputs < 1 or not self.widths or min(self.widths) < 1 or len(self.widths) > 8:
            raise InputError.of(
                found=f"a network of {self.channels} channels, widths {self.widths}, {self.outputs} outputs",
                expected="at least one channel and output, and 1 to 8 levels of at least 1 feature",
                fix="start from the defaults: widths (16, 32, 64, 128)",
            )
        if self.padding not in ("zeros", "reflect") or self.dim not in (2, 3):
            raise InputError.of(
                found=f"a network with padding {self.padding!r} and {self.dim} dimensions",
                expected="padding zeros or reflect, 2 or 3 dimensions",
                fix="start from the defaults: zeros and 2",
            )
        if not 1 / 20 <= self.anisotropy <= 20 or (self.dim == 2 and self.anisotropy != 1):
            raise InputError.of(
                found=f"a network of {self.dim} dimensions with anisotropy {self.anisotropy:g}",
                expected="1/20 to 20 in three dimensions, 1 in two",
                fix="give the spacing of sections over that of pixels",
            )

    @property
    def flat(self) -> int:
        """The number of levels, from the finest, that work section by section."""
        return min(len(self.widths) - 1, max(0, round(math.log2(self.anisotropy))))

    @property
    def spacing(self) -> tuple[float, ...]:
        """The spacing along each axis, in px of y and x."""
        return (self.anisotropy, 1.0, 1.0)[-self.dim :]

    def sizes(self, side: int) -> tuple[int, ...]:
        """Return a size along y and x as sizes along every axis.

        >>> NetworkConfig(dim=3, anisotropy=2.0).sizes(64), NetworkConfig().sizes(64)
        ((32, 64, 64), (64, 64))
        """
        return (side >> self.flat, side, side)[-self.dim :]


Weights = dict[str, torch.Tensor]

_EPSILON = 1e-5
"""Epsilon of batch norm."""

_CONVOLUTION: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM: dict[int, type[nn.BatchNorm2d | nn.BatchNorm3d]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def _unit(inputs: int, outputs: int, config: NetworkConfig, level: int) -> nn.Sequential:
    around = (int(level >= config.flat), 1, 1)[-config.dim :]
    kernel: Any = tuple(2 * one + 1 for one in around)
    padding: Any = around
    convolution = _CONVOLUTION[config.dim](inputs, outputs, kernel, padding=padding, padding_mode=config.padding)
    return nn.Sequential(_NORM[config.dim](inputs, eps=_EPSILON), nn.ReLU(), convolution)


def _projection(inputs: int, outputs: int, config: NetworkConfig) -> nn.Sequential:
    return nn.Sequential(_NORM[config.dim](inputs, eps=_EPSILON), _CONVOLUTION[config.dim](inputs, outputs, 1))


class _Down(nn.Module):
    """(n, inputs, y, x) to (n, outputs, y, x)."""

    def __init__(self, inputs: int, outputs: int, config: NetworkConfig, level: int) -> None:
        super().__init__()
        self.projection = _projection(inputs, outputs, config)
        self.units = nn.ModuleList([_unit(inputs if i == 0 else outputs, outputs, config, level) for i in range(4)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.projection(x) + self.units[1](self.units[0](x))
        return cast(torch.Tensor, y + self.units[3](self.units[2](y)))


class _Up(nn.Module):
    """(n, inputs, y, x) and a skip (n, outputs, y, x) to (n, outputs, y, x)."""

    def __init__(self, inputs: int, outputs: int, config: NetworkConfig, level: int) -> None:
        super().__init__()
        self.projection = _projection(inputs, outputs, config)
        self.units = nn.ModuleList([_unit(inputs if i == 0 else outputs, outputs, config, level) for i in range(4)])
        style = config.widths[-1]
        self.styles = nn.ModuleList([nn.Linear(style, outputs) for _ in range(3)]) if config.style else None

    def _styled(self, i: int, x: torch.Tensor, style: torch.Tensor | None) -> torch.Tensor:
        if self.styles is not None and style is not None:
            entry = self.styles[i - 1](style)
            x = x + entry.reshape(*entry.shape, *(1,) * (x.ndim - 2))
        return cast(torch.Tensor, self.units[i](x))

    def forward(self, x: torch.Tensor, skip: torch.Tensor, style: torch.Tensor | None) -> torch.Tensor:
        y = self.projection(x) + self._styled(1, self.units[0](x) + skip, style)
        return cast(torch.Tensor, y + self._styled(3, self._styled(2, y, style), style))


class UNet(nn.Module):
    """(n, channels, y, x) float to (n, outputs, y, x); y and x are multiples of `stride`. With z, when dim is 3."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        coarser = (*widths[1:], widths[-1])
        finer = (config.channels, *widths[:-1])
        self.down = nn.ModuleList([_Down(a, b, config, i) for i, (a, b) in enumerate(zip(finer, widths, strict=True))])
        self.up = nn.ModuleList([_Up(a, b, config, i) for i, (a, b) in enumerate(zip(coarser, widths, strict=True))])
        last = _CONVOLUTION[config.dim](widths[0], config.outputs, 1)
        self.head = nn.Sequential(_NORM[config.dim](widths[0], eps=_EPSILON), nn.ReLU(), last)
        if config.outputs > config.dim and last.bias is not None:
            with torch.no_grad():  # distance starts between its values inside and outside, which saves the first steps
                last.bias[config.dim] = -2.0

    @property
    def stride(self) -> int:
        """See `Network`; along y and x."""
        return 1 << (len(self.config.widths) - 1)

    @property
    def context(self) -> int:
        """See `Network`: eight convolutions a level, and the windows of pooling."""
        return 8 * (2 * self.stride - 1) + self.stride - 1

    @property
    def bytes_per_pixel(self) -> int:
        """See `Network`: eight maps of the finest level are held at once."""
        return self.config.widths[0] * 4 * 8

    def adapt(self, weights: Weights, given: NetworkConfig, kept: Mapping[int, float]) -> Weights:
        """See `Network`, and the module."""
        for what in ("widths", "dim", "flat"):
            if getattr(given, what) != getattr(self.config, what):
                raise InputError.of(
                    found=f"a starting model with {what} {getattr(given, what)}",
                    expected=f"{what} {getattr(self.config, what)}, as the network to train",
                    fix="choose the starting model's, or start from random weights",
                )
        if given.style and not self.config.style:
            raise InputError.of(
                found="a starting model with a style vector",
                expected="none, as the network to train",
                fix="train a network with style, or start from random weights",
            )
        fresh = self.state_dict()
        adapted = _other_channels(weights, given.channels, self.config.channels)
        for name in ("head.2.weight", "head.2.bias"):
            adapted[name] = fresh[name].clone()
            for row, scale in kept.items():
                adapted[name][row] = weights[name][row] / scale
        styles = {key: torch.zeros_like(fresh[key]) for key in fresh.keys() - weights.keys()}
        return adapted | styles

    def encode(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the features of every level, level 0 first: (n, widths[level], y >> level, x >> level)."""
        pool = functional.max_pool2d if self.config.dim == 2 else functional.max_pool3d
        levels: list[torch.Tensor] = []
        for level, block in enumerate(self.down):
            x = block(pool(x, self._factors(level)) if level else x)
            levels.append(x)
        return levels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs (n, outputs, y, x)."""
        skips = self.encode(x)
        x = skips[-1]
        style = functional.normalize(x.flatten(2).mean(dim=2)) if self.config.style else None
        for level in reversed(range(len(self.up))):
            x = self.up[level](x, skips[level], style)
            if level:
                x = functional.interpolate(x, scale_factor=self._factors(level), mode="nearest")
        return cast(torch.Tensor, self.head(x))

    def _factors(self, level: int) -> Any:
        """Return how many pixels of the finer level one of this level has along each axis."""
        return (1 + int(level > self.config.flat), 2, 2)[-self.config.dim :]

    def extra_repr(self) -> str:
        """Describe the network, for torch's representation."""
        return f"{self.config}, stride={self.stride}, context={self.context}"


def _other_channels(weights: Weights, given: int, wanted: int) -> Weights:
    """Return the weights for another number of input channels; see the module.

    The first block has two paths: batch norm, ReLU, convolution, and batch norm, 1 x 1 convolution.
    """
    adapted = dict(weights)
    for norm, convolution, rectified in (
        ("down.0.units.0.0", "down.0.units.0.2", True),
        ("down.0.projection.0", "down.0.projection.1", False),
    ):
        if wanted < given:
            # the output of batch norm for a channel that is 0 everywhere
            scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + _EPSILON).sqrt()
            constant = (weights[f"{norm}.bias"] - scale * weights[f"{norm}.running_mean"])[wanted:]
            constant = constant.relu() if rectified else constant
            kernel = weights[f"{convolution}.weight"][:, wanted:].flatten(2).sum(dim=2)
            adapted[f"{convolution}.bias"] = weights[f"{convolution}.bias"] + kernel @ constant
        adapted[f"{convolution}.weight"] = _resized(weights[f"{convolution}.weight"], wanted, axis=1, fill=0)
        for name, fill in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            adapted[f"{norm}.{name}"] = _resized(weights[f"{norm}.{name}"], wanted, axis=0, fill=fill)
    return adapted


def _resized(values: torch.Tensor, size: int, *, axis: int, fill: float) -> torch.Tensor:
    """Cut or fill an axis to a size, at the end."""
    missing = size - values.shape[axis]
    if missing <= 0:
        return values.narrow(axis, 0, size).clone()
    shape = [missing if i == axis else n for i, n in enumerate(values.shape)]
    return torch.cat([values, torch.full(shape, fill, dtype=values.dtype)], dim=axis)
