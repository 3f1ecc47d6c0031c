"""What every loss is given: the targets of a batch and the weights of its terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from sketchscale.errors import InputError

__all__ = ["BatchTargets", "Loss", "LossConfig"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A line of the LOSSES table; call it as `loss(prediction, targets, config)`.

    Attributes:
        compute: the pure function.
        outputs: channels that the network must have: flow y, flow x, distance and, from the fourth on, the loss's own.
        dense: whether every pixel must be annotated.
        signed: whether the distance is negative in proportion in background (else the constant `outside`).
    """

    compute: Callable[[torch.Tensor, BatchTargets, LossConfig], torch.Tensor]
    outputs: int = 3
    dense: bool = False
    signed: bool = False

    def __call__(self, prediction: torch.Tensor, targets: BatchTargets, config: LossConfig) -> torch.Tensor:
        return self.compute(prediction, targets, config)
