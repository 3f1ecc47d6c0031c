"""Losses of a prediction against what a sketch knows, and the LOSSES table.

A loss is a function `(prediction, targets, config) -> scalar` of tensors on one device. Every term is a sum over the
pixels where its target is known, divided by the number of them in the whole batch, so that a patch with few strokes
weighs as little as it says; a term without any pixel is left out (no 0 / 0). No gradient reaches a pixel about which
the sketch says nothing.

Sum of the journal's Sketchpose loss, with d distance, v flow, D the pixels of known distance (background included):

    5 / |D_v| sum_{D_v} |v - v*|^2  +  0.08 / |D| sum_D (d - d*)^2
        +  0.08 / |S1| sum_{S1 \\ D} relu(lower - d)^2 + relu(d - upper)^2

The last sum is divided by all annotated foreground: divided by |S1 \\ D| alone, the few bounded pixels that dense
labels have at crop borders outweigh all others (measured: 30 of a loss of 33).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.nn import functional

from sketchscale.errors import InputError, UnknownNameError

__all__ = ["LOSSES", "BatchTargets", "LossConfig", "find_loss", "sketchpose"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """Which loss, and its weights.

    Attributes:
        name: key of the LOSSES table.
        flow, distance, bounds: weights of the three terms; 5 : 0.08 : 0.08 balances unit vectors against px.
        far: weight of a known background pixel more than `rim` px away from every annotated object, relative to the
            others. 1 is the journal's loss; less lets the network spend itself on where objects are.
        rim: px, see `far`.
    """

    name: str = "sketchpose"
    flow: float = 5.0
    distance: float = 0.08
    bounds: float = 0.08
    far: float = 1.0
    rim: int = 4

    def __post_init__(self) -> None:
        if min(self.flow, self.distance, self.bounds) < 0 or not 0 < self.far <= 1 or not 0 <= self.rim <= 64:
            raise InputError.of(
                found=f"loss weights flow {self.flow}, distance {self.distance}, bounds {self.bounds}, "
                f"far {self.far}, rim {self.rim}",
                expected="weights of at least 0, far above 0 and at most 1, rim 0 to 64",
                fix="leave them at 5, 0.08, 0.08, 1 and 4",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTargets:
    """Targets of a batch, as annotations.targets.Targets but with a leading axis n.

    Attributes:
        flow: (n, 2, y, x). distance, lower, upper: (n, y, x), px.
        known, flow_known, bounded, inside: (n, y, x) bool; `inside` is annotated foreground.
    """

    flow: torch.Tensor
    distance: torch.Tensor
    known: torch.Tensor
    flow_known: torch.Tensor
    lower: torch.Tensor
    upper: torch.Tensor
    bounded: torch.Tensor
    inside: torch.Tensor


Loss = Callable[[torch.Tensor, BatchTargets, LossConfig], torch.Tensor]


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


LOSSES: Mapping[str, Loss] = {"sketchpose": sketchpose}


def find_loss(name: str) -> Loss:
    """A loss by name.

    Raises:
        UnknownNameError: lists the known ones.
    """
    if name not in LOSSES:
        raise UnknownNameError.among("loss", name, LOSSES)
    return LOSSES[name]
