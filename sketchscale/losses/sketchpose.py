"""The journal's Sketchpose loss: masked flow, masked distance, two-sided inequality.

With d distance, v flow, D the pixels of known distance (background included), W those of objects whose distance a line
of one or two pixels determines to its width, and e the distance from d to what is possible: to d* in D, to the interval
from lower to upper elsewhere.

    5 / |D_v| sum_{D_v} |v - v*|^2  +  0.08 / |D + W| sum_{D + W} e^2 + g^2  +  0.08 / |S1| sum_{S1 \\ (D + W)} e^2

g^2 = (d - m)^2 / (1 + h^2) in W, with m the middle and h half the width of the interval, px: of what is possible the
middle is the best guess. Beside wider strokes there is none, and in strokes d is free.

The last sum is divided by all annotated foreground: divided by its own pixels alone, the few bounded pixels that dense
labels have at crop borders outweigh all others (measured: 30 of a loss of 33). Divided by D + W too, it would vanish
beside brushes that leave little of an object (radius 3 px: AP 0.5 of .2 instead of .8 on one image of small nuclei).
"""

from __future__ import annotations

import torch
from torch.nn import functional

from sketchscale.losses.base import BatchTargets, LossConfig, Term, combined, full_precision, pixel_weights

__all__ = ["beside_thin_lines", "between_bounds", "bounds_term", "distance_term", "sketchpose"]

_THIN = 1.0
"""px, half the interval between bounds up to which its middle is learned: beside lines of one or two pixels."""


def sketchpose(prediction: torch.Tensor, targets: BatchTargets, config: LossConfig) -> torch.Tensor:
    """Return the journal's loss: masked flow, masked distance, two-sided inequality.

    Args:
        prediction: (n, 3, y, x), flow y, flow x, distance, or (n, 4, z, y, x), flow z first; any float type,
            computed in float32 at least.

    Returns:
        A scalar; 0 with a gradient of 0 when nothing is annotated in the batch.

    Source: Sketchpose (journal), eqs. 14 and 15; the upper bound follows from its theorem.
    """
    values, axes = full_precision(prediction), prediction.ndim - 2
    flow, distance = values[:, :axes], values[:, axes]
    pixels = pixel_weights(targets, config)
    return combined(
        [
            Term.mean(config.flow, ((flow - targets.flow) ** 2).sum(dim=1), targets.flow_known, pixels),
            distance_term(distance, targets, config, pixels),
            bounds_term(distance, targets, config),
        ]
    )


def distance_term(distance: torch.Tensor, targets: BatchTargets, config: LossConfig, pixels: torch.Tensor) -> Term:
    """Return the mean error of the distance on D and W, see the module.

    Args:
        distance, pixels: (n, y, x), px; weights of pixels.
    """
    half = (targets.upper.clamp(max=1e3) - targets.lower) / 2
    thin = beside_thin_lines(targets)
    possible = torch.where(thin, between_bounds(distance, targets), targets.distance)
    guess = torch.where(thin, (distance - targets.lower - half) ** 2 / (1 + half**2), 0.0)
    return Term.mean(config.distance, (distance - possible) ** 2 + guess, targets.known | thin, pixels)


def beside_thin_lines(targets: BatchTargets) -> torch.Tensor:
    """Return W, see the module: (n, y, x) bool."""
    return targets.bounded & targets.two_sided & (targets.upper - targets.lower <= 2 * _THIN)


def bounds_term(distance: torch.Tensor, targets: BatchTargets, config: LossConfig) -> Term:
    """Return the penalty for lower <= distance <= upper on annotated foreground that is not beside a thin line.

    The sum is divided by the number of all annotated foreground pixels.

    Args:
        distance: (n, y, x), px.
    """
    below = functional.relu(targets.lower - distance)
    above = functional.relu(distance - targets.upper.clamp(max=1e6))
    loose = targets.bounded & targets.inside & ~beside_thin_lines(targets)
    return Term.share(config.bounds, below**2 + above**2, loose, targets.inside)


def between_bounds(distance: torch.Tensor, targets: BatchTargets) -> torch.Tensor:
    """Return what is nearest to a distance (n, y, x) between its bounds; no gradient passes.

    So the squared difference to it pulls a distance into its bounds.
    """
    return torch.minimum(torch.maximum(distance.detach(), targets.lower), targets.upper)
