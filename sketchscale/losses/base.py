"""What every loss is given, the weights of its terms, and how a term becomes a mean over a batch.

A term is a sum over the pixels that know something, and how many these are. The mean divides by the number in the
whole batch: of all patches, and of all processes when training is distributed. As distributed training averages the
gradients of its processes, each process divides its own sum by the mean count:

    mean over ranks of  grad(sum_r) * ranks / count  =  grad(sum) / count      with  sum, count  over all ranks

so a rank with few strokes weighs as little as they say, and the gradient is that of one process with the joined batch.
Every rank makes one all-reduce per loss, whatever its patches hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import distributed
from torch.nn import functional

from sketchscale.errors import InputError

__all__ = [
    "BatchTargets",
    "EikonalConfig",
    "HoverConfig",
    "Loss",
    "LossConfig",
    "OmniposeConfig",
    "Term",
    "combined",
    "full_precision",
    "pixel_weights",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class OmniposeConfig:
    """What `sketchpose-1` adds to flow, distance and bounds.

    Attributes:
        boundary: weight of the cross-entropy of the boundary logit.
        norm: weight of the squared error of the flow's length, inside objects.
        euler: weight of the squared distance of trajectories, px; per component, as the mean of both.
        steps: of a trajectory, 1 px each where the flow is a unit vector.
        stride: trajectories start at every stride-th pixel along both axes; 1 is the paper's, and slow.
        alpha, beta: px and none, of the pixel weight beta + exp(-distance / alpha).
    """

    boundary: float = 2.0
    norm: float = 2.0
    euler: float = 1.0
    steps: int = 15
    stride: int = 4
    alpha: float = 5.0
    beta: float = 2.0

    def __post_init__(self) -> None:
        if min(self.boundary, self.norm, self.euler, self.beta) < 0 or self.alpha <= 0:
            raise InputError.of(
                found=f"loss weights boundary {self.boundary}, norm {self.norm}, euler {self.euler}, "
                f"alpha {self.alpha}, beta {self.beta}",
                expected="weights and beta of at least 0, alpha above 0",
                fix="leave them at 2, 2, 1, 5 and 2",
            )
        if not 1 <= self.steps <= 100 or not 1 <= self.stride <= 16:
            raise InputError.of(
                found=f"trajectories of {self.steps} steps from every {self.stride}th pixel",
                expected="1 to 100 steps, a stride of 1 to 16",
                fix="leave them at 15 and 4",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EikonalConfig:
    """What `eikonal` adds to flow, distance and bounds; with those at 0 it is the paper's functional.

    Attributes:
        length: weight of (|v| - 1)^2, everywhere.
        slope: weight of (|grad phi| - 1)^2, off the known boundary.
        coupling: weight of |grad phi - v|^2, off the known boundary.
        boundary: weight of the squared error of phi beside the known boundary.
        sides: weight of the hinges that keep phi on its side of 0, on background and on foreground strokes.
        exponent: of these hinges, 1 or 2.
        near: weight, in the terms of the slope, of pixels where |phi| < 1: a boundary that nobody drew runs there,
            where the slope of a distance need not be 1. Relative to the other pixels; above 0, as a field that is flat
            at 0 would cost nothing.
        band: px, the deepest background that the distance term teaches.
    """

    length: float = 1.0
    slope: float = 1.0
    coupling: float = 1.0
    boundary: float = 1.0
    sides: float = 1.0
    exponent: int = 2
    near: float = 0.2
    band: float = 8.0

    def __post_init__(self) -> None:
        if min(self.length, self.slope, self.coupling, self.boundary, self.sides, self.band) < 0:
            raise InputError.of(
                found=f"loss weights length {self.length}, slope {self.slope}, coupling {self.coupling}, "
                f"boundary {self.boundary}, sides {self.sides}, band {self.band}",
                expected="none below 0",
                fix="leave them alone",
            )
        if self.exponent not in (1, 2) or not 0 < self.near <= 1:
            raise InputError.of(
                found=f"exponent {self.exponent}, near {self.near}",
                expected="exponent 1 or 2, near above 0 and at most 1",
                fix="leave them at 2 and 0.2",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class HoverConfig:
    """Weights of the four terms of `hover`: squares and slopes of the maps, cross-entropy and Dice of m."""

    squares: float = 1.0
    slopes: float = 1.0
    entropy: float = 1.0
    dice: float = 1.0

    def __post_init__(self) -> None:
        if min(self.squares, self.slopes, self.entropy, self.dice) < 0:
            raise InputError.of(
                found=f"loss weights squares {self.squares}, slopes {self.slopes}, entropy {self.entropy}, "
                f"dice {self.dice}",
                expected="none below 0",
                fix="leave them at 1",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """Which loss, and its weights.

    Attributes:
        name: key of the LOSSES table.
        flow, distance, bounds: weights of the three terms that all losses share, on |v - v*|^2 of unit vectors and on
            px^2; 5 : 0.08 : 0.08 is Omnipose's 10 : 2 with its flow of length 5 and its division by 25.
        far: weight of a known background pixel more than `rim` px away from every annotated object, relative to the
            others. 1 is the journal's loss; less lets the network spend itself on where objects are. Not of `eikonal`,
            whose `band` says which background is taught in px.
        rim: px, see `far`.
        omnipose: of `sketchpose-1` only. eikonal: of `eikonal` only.
        hover: of `hover` only, which has none of the first three weights.
    """

    name: str = "sketchpose"
    flow: float = 5.0
    distance: float = 0.08
    bounds: float = 0.08
    far: float = 1.0
    rim: int = 4
    omnipose: OmniposeConfig = field(default_factory=OmniposeConfig)
    eikonal: EikonalConfig = field(default_factory=EikonalConfig)
    hover: HoverConfig = field(default_factory=HoverConfig)

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
        flow: (n, 2, y, x). distance, lower, upper, signed: (n, y, x), px.
        known, flow_known, bounded, inside, background, boundary, boundary_known, signed_known: (n, y, x) bool.
        maps: (n, 4, y, x), v, h, m and where v and h are known; (n, 0, y, x) where the loss does not read them.
    """

    flow: torch.Tensor
    distance: torch.Tensor
    known: torch.Tensor
    flow_known: torch.Tensor
    lower: torch.Tensor
    upper: torch.Tensor
    bounded: torch.Tensor
    inside: torch.Tensor
    background: torch.Tensor
    boundary: torch.Tensor
    boundary_known: torch.Tensor
    signed: torch.Tensor
    signed_known: torch.Tensor
    maps: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A line of the LOSSES table; call it as `loss(prediction, targets, config)`.

    Attributes:
        compute: the pure function.
        outputs: channels that the network must have: flow y, flow x, distance and, from the fourth on, the loss's own.
            For the target "hover" v, h and m instead.
        dense: whether every pixel must be annotated.
        signed: whether the distance is negative in proportion in background (else the constant `outside`).
        target: what the network is taught to give, see networks.model.ModelConfig.
    """

    compute: Callable[[torch.Tensor, BatchTargets, LossConfig], torch.Tensor]
    outputs: int = 3
    dense: bool = False
    signed: bool = False
    target: Literal["flow", "hover"] = "flow"

    def __call__(self, prediction: torch.Tensor, targets: BatchTargets, config: LossConfig) -> torch.Tensor:
        return self.compute(prediction, targets, config)


@dataclass(frozen=True, slots=True)
class Term:
    """A weighted sum over some pixels of this process's batch, and what it is divided by."""

    weight: float
    total: torch.Tensor
    count: torch.Tensor

    @classmethod
    def mean(cls, weight: float, values: torch.Tensor, where: torch.Tensor, pixels: torch.Tensor | None = None) -> Term:
        """Mean over a mask, pixel by pixel weighted if wanted; all three of the same shape."""
        share = where.to(values.dtype) if pixels is None else where * pixels
        return cls(weight, (values * share).sum(), share.sum())

    @classmethod
    def share(cls, weight: float, values: torch.Tensor, where: torch.Tensor, among: torch.Tensor) -> Term:
        """Sum over a mask, divided by the size of another one."""
        return cls(weight, (values * where).sum(), among.sum())


def combined(terms: Sequence[Term]) -> torch.Tensor:
    """Their weighted sum, each divided by its count over all processes; a term without pixels is 0, its gradient too.

    >>> one = torch.ones(4)
    >>> float(combined([Term.mean(2.0, 3 * one, one > 0), Term.mean(1.0, one, one < 0)]))
    6.0
    """
    counts = _mean_over_ranks(torch.stack([term.count.detach().float() for term in terms]))
    totals = torch.stack([term.weight * term.total for term in terms])
    return (totals / counts.clamp(min=1e-6)).sum()


def _mean_over_ranks(counts: torch.Tensor) -> torch.Tensor:
    if not (distributed.is_available() and distributed.is_initialized()):
        return counts
    distributed.all_reduce(counts)
    return counts / distributed.get_world_size()


def full_precision(prediction: torch.Tensor) -> torch.Tensor:
    """In float32, or in float64 as it is."""
    return prediction if prediction.dtype == torch.float64 else prediction.float()


def pixel_weights(targets: BatchTargets, config: LossConfig) -> torch.Tensor:
    """(n, y, x): 1 inside and within the rim of annotated objects, `far` beyond."""
    inside = targets.inside.float()
    if config.far == 1:
        return torch.ones_like(inside)
    near = functional.max_pool2d(inside[:, None], 2 * config.rim + 1, stride=1, padding=config.rim)[:, 0]
    return config.far + (1 - config.far) * near
