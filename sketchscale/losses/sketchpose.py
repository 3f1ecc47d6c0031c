"""The journal's Sketchpose loss: masked flow, masked distance, two-sided inequality.

With d distance, v flow, D the pixels of known distance (background included):

    5 / |D_v| sum_{D_v} |v - v*|^2  +  0.08 / |D| sum_D (d - d*)^2
        +  0.08 / |S1| sum_{S1 \\ D} relu(lower - d)^2 + relu(d - upper)^2

The last sum is divided by all annotated foreground: divided by |S1 \\ D| alone, the few bounded pixels that dense
labels have at crop borders outweigh all others (measured: 30 of a loss of 33).
"""

from __future__ import annotations

import torch
from torch.nn import functional

from sketchscale.losses.base import BatchTargets, LossConfig

__all__ = ["sketchpose"]


def sketchpose(prediction: torch.Tensor, targets: BatchTargets, config: LossConfig) -> torch.Tensor:
    """The journal's loss: masked flow, masked distance, two-sided inequality.

    Args:
        prediction: (n, 3, y, x), flow y, flow x, distance; any float type, computed in float32.

    Returns:
        A scalar; 0 with a gradient of 0 when the batch knows nothing.

    Source: Sketchpose (journal), eqs. 14 and 15; the upper bound follows from its theorem.
    """
    values = prediction.float()
    flow, distance = values[:, :2], values[:, 2]
    weight = _pixel_weights(targets, config)
    flow_error = ((flow - targets.flow) ** 2).sum(dim=1)
    distance_error = (distance - targets.distance) ** 2
    below = functional.relu(targets.lower - distance)
    above = functional.relu(distance - targets.upper.clamp(max=1e6))
    terms = (
        config.flow * _mean(flow_error, targets.flow_known, weight),
        config.distance * _mean(distance_error, targets.known, weight),
        config.bounds * _share(below**2 + above**2, targets.bounded, targets.inside),
    )
    return torch.stack(terms).sum()


def _pixel_weights(targets: BatchTargets, config: LossConfig) -> torch.Tensor:
    """(n, y, x): 1 inside and within the rim of annotated objects, `far` beyond."""
    inside = targets.inside.float()
    if config.far == 1:
        return torch.ones_like(inside)
    near = functional.max_pool2d(inside[:, None], 2 * config.rim + 1, stride=1, padding=config.rim)[:, 0]
    return config.far + (1 - config.far) * near


def _mean(values: torch.Tensor, where: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted mean over a mask; 0, with gradient 0, over an empty one."""
    weight = weight * where
    return (torch.where(where, values, 0.0) * weight).sum() / weight.sum().clamp(min=1e-6)


def _share(values: torch.Tensor, where: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
    """Sum over a mask, divided by the size of a larger one."""
    return torch.where(where, values, 0.0).sum() / among.sum().clamp(min=1)
