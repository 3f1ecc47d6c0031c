"""The loss of h/v maps on partial annotation, and the formula that it shares with the synthesis.

With v, h where a pixel lies in its object from top to bottom and from left to right (-1 to 1, 0 in background), and m
the probability that it lies in one:

    <(v - v*)^2 + (h - h*)^2> / 2    where the maps are known: in background, on drawn boundaries, and in every object
                                     that is visible whole
    <(dv/dy - dv*/dy)^2 + (dh/dx - dh*/dx)^2> / 2    over 5 x 5 px, inside of objects, where all of the window is known
    <cross entropy of m>             on every annotated pixel
    sum |m* - 2 m m* + m| / sum(m + m*)    there: 1 - Dice, its denominator held fixed in the gradient, so that patches
                                     and processes add up like any other term

Of a batch without anything unknown this is `synthesis.losses.map_loss`, up to the 0.001 that smoothes Dice there, and
its gradient but for that of the denominator.

Source: HoVer-Net (Graham et al. 2019), equations 2 to 5; what is known of partial annotation is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional

from sketchscale.errors import InputError
from sketchscale.losses.base import BatchTargets, LossConfig, Term, combined, full_precision, pixel_weights

__all__ = ["HoverConfig", "hover", "slope_errors", "square_errors"]

_REACH = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class HoverConfig(LossConfig):
    """Weights of the four terms: squares and slopes of the maps, cross-entropy and Dice of m.

    The weights of flow are not used.
    """

    weights: ClassVar[tuple[str, ...]] = ("squares", "slopes", "entropy", "dice")

    name: str = "hover"
    squares: float = 1.0
    slopes: float = 1.0
    entropy: float = 1.0
    dice: float = 1.0


def hover(prediction: torch.Tensor, targets: BatchTargets, config: HoverConfig) -> torch.Tensor:
    """Return the loss of h/v maps; see the module for its formula.

    Args:
        prediction: (n, 3, y, x), v and h before tanh and m before the sigmoid; any float type, computed in float32 at
            least.
        targets: with maps.

    Returns:
        A scalar; 0 with a gradient of 0 when nothing is annotated in the batch.

    Raises:
        InputError: targets without maps.
    """
    if targets.maps.shape[1] == 0:
        raise InputError.of(found="targets without h/v maps", expected="maps", fix="draw patches with maps=True")
    values, pixels = full_precision(prediction), pixel_weights(targets, config)
    vh, logit, probability = torch.tanh(values[:, :2]), values[:, 2], torch.sigmoid(values[:, 2])
    inside, known = targets.maps[:, 2].to(values.dtype), targets.maps[:, 3] > 0
    annotated = targets.inside | targets.background | targets.boundary
    known &= annotated
    entropy = functional.binary_cross_entropy_with_logits(logit, inside, reduction="none")
    apart = (probability + inside - 2 * probability * inside) * annotated
    unknown = functional.max_pool2d((~known)[:, None].float(), 2 * _REACH + 1, stride=1, padding=_REACH)
    within = targets.inside & (
        unknown[:, 0] == 0
    )  # nothing unknown in 5 x 5 px; pixels beyond the patch count as known
    return combined(
        [
            Term.mean(config.squares, square_errors(vh, targets.maps), known, pixels),
            Term.mean(config.slopes, slope_errors(vh, targets.maps), within),
            Term.mean(config.entropy, entropy, annotated, pixels),
            Term(config.dice, apart.sum(), ((probability + inside) * annotated).sum()),
        ]
    )


def square_errors(vh: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error (n, y, x) of v and h, the first two of `maps`."""
    return ((vh - maps[:, :2]) ** 2).mean(dim=1)


def slope_errors(vh: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error (n, y, x) of the slopes of v along y and of h along x.

    A slope is taken over 5 x 5 pixels; values beyond the border count as 0.

    >>> flat = torch.zeros(1, 3, 4, 4)
    >>> slope_errors(flat[:, :2], flat).sum()
    tensor(0.)
    """
    x = torch.arange(-2.0, 3.0)
    square = x[:, None] ** 2 + x[None, :] ** 2
    along = torch.where(square > 0, x[None, :] / square.clamp(min=1e-9), torch.zeros(5, 5)).to(vh)
    off = vh - maps[:, :2]
    v = functional.conv2d(off[:, :1], along.T[None, None], padding=_REACH)
    h = functional.conv2d(off[:, 1:], along[None, None], padding=_REACH)
    return (torch.cat([v, h], 1) ** 2).mean(dim=1)
