"""The inputs of every loss, the weights of its terms, and how a term becomes a mean over a batch.

A term is a sum over pixels with a known target, and the number of these pixels. The mean divides by the number in the
whole batch: of all patches, and of all processes when training is distributed. As distributed training averages the
gradients of its processes, each process divides its own sum by the mean count:

    mean over ranks of  grad(sum_r) * ranks / count  =  grad(sum) / count      with  sum, count  over all ranks

so a rank with few strokes weighs as little as they say, and the gradient is that of one process with the joined batch.
Every rank makes the same all-reduces per loss, whatever its patches hold: one, and of `eikonal` one more for each of
the two agreements with the strokes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import distributed
from torch.nn import functional

from sketchscale.errors import InputError

__all__ = [
    "BatchTargets",
    "Loss",
    "LossConfig",
    "Term",
    "combined",
    "full_precision",
    "mean_over_ranks",
    "pixel_weights",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """The name of a loss, and the weights that all losses share; a subclass adds the weights of one loss.

    Attributes:
        name: key of the LOSSES table.
        flow, distance, bounds: weights of the three terms that losses of flow share, on |v - v*|^2 of unit vectors and
            on px^2; 5 : 0.08 : 0.08 is Omnipose's 10 : 2 with its flow of length 5 and its division by 25.
        far: weight of a known background pixel more than `rim` px away from every annotated object, relative to the
            others. 1 is the journal's loss; less lets the network spend itself on where objects are. Not of `eikonal`,
            whose `band` sets in px how far into the background it trains.
        rim: px, see `far`.
        anisotropy: of the images, see networks.NetworkConfig; a training sets it to that of its network.
        weights: the names of all weights, of which one at least is above 0.
    """

    weights: ClassVar[tuple[str, ...]] = ("flow", "distance", "bounds")

    name: str = "sketchpose"
    flow: float = 5.0
    distance: float = 0.08
    bounds: float = 0.08
    far: float = 1.0
    rim: int = 4
    anisotropy: float = 1.0

    def __post_init__(self) -> None:
        self.expect_weights(*self.weights)
        self.expect(any(getattr(self, name) for name in self.weights), "at least one weight above 0", *self.weights)
        self.expect(0 < self.far <= 1 and 0 <= self.rim <= 64, "far above 0 and at most 1, rim 0 to 64", "far", "rim")

    def expect_weights(self, *names: str) -> None:
        """Refuse negative values of these settings, as `expect` does."""
        self.expect(min(getattr(self, name) for name in names) >= 0, "weights of at least 0", *names)

    def expect(self, fits: bool, expected: str, *names: str) -> None:
        """Refuse settings that do not fit.

        Raises:
            InputError: shows the settings and their defaults.
        """
        if not fits:
            raise InputError.of(
                found=f"the loss {self.name} with " + ", ".join(f"{name} {getattr(self, name)}" for name in names),
                expected=expected,
                fix="leave them at " + ", ".join(f"{type(self).__dataclass_fields__[name].default}" for name in names),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTargets:
    """Targets of a batch, as annotations.targets.Targets but with a leading axis n; of volumes with z before y.

    Attributes:
        flow: (n, 2, y, x). distance, lower, upper, signed: (n, y, x), px.
        known, flow_known, bounded, two_sided, inside, background, boundary, boundary_known, signed_known, ignored:
            (n, y, x) bool.
        objects: (n, y, x) int32; numbers count within a patch.
        edges, start: (n, 1, y, x) and (n, 4, y, x), or (n, 0, y, x) where they were not asked for.
        maps: (n, k, y, x), those of the target (see networks.targets); (n, 0, y, x) where it has none.
    """

    flow: torch.Tensor
    distance: torch.Tensor
    known: torch.Tensor
    flow_known: torch.Tensor
    lower: torch.Tensor
    upper: torch.Tensor
    bounded: torch.Tensor
    two_sided: torch.Tensor
    inside: torch.Tensor
    background: torch.Tensor
    boundary: torch.Tensor
    boundary_known: torch.Tensor
    signed: torch.Tensor
    signed_known: torch.Tensor
    objects: torch.Tensor
    ignored: torch.Tensor
    edges: torch.Tensor
    start: torch.Tensor
    maps: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """An entry of the LOSSES table; call it as `loss(prediction, targets, config)`.

    Attributes:
        compute: the pure function.
        config: the class of its settings.
        outputs: channels that a network of planes must have: the three of the target and, from the fourth on, the
            loss's own. Those of volumes have one more for the flow along z, unless `planes_only`.
        dense: whether every pixel must be annotated.
        signed: whether the distance is negative in proportion in background (else the constant `outside`).
        interior: whether strokes inside objects are enough, without any boundary.
        target: what the network is trained to give, see networks.targets.
        planes_only: whether the loss is made for planes and not for volumes.
    """

    compute: Callable[[torch.Tensor, BatchTargets, Any], torch.Tensor]
    config: type[LossConfig] = LossConfig
    outputs: int = 3
    dense: bool = False
    signed: bool = False
    interior: bool = False
    target: str = "flow"
    planes_only: bool = False

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
        """Return the mean over a mask, with a weight for each pixel if given; all arrays have the same shape."""
        share = where.to(values.dtype) if pixels is None else where * pixels
        return cls(weight, (values * share).sum(), share.sum())

    @classmethod
    def share(cls, weight: float, values: torch.Tensor, where: torch.Tensor, among: torch.Tensor) -> Term:
        """Return the sum over a mask, divided by the size of another mask."""
        return cls(weight, (values * where).sum(), among.sum())


def combined(terms: Sequence[Term]) -> torch.Tensor:
    """Return the weighted sum of terms, each divided by its count over all processes.

    A term without pixels is 0, and so is its gradient.

    >>> one = torch.ones(4)
    >>> float(combined([Term.mean(2.0, 3 * one, one > 0), Term.mean(1.0, one, one < 0)]))
    6.0
    """
    counts = mean_over_ranks(torch.stack([term.count.detach().float() for term in terms]))
    totals = torch.stack([term.weight * term.total for term in terms])
    return (totals / counts.clamp(min=1e-6)).sum()


def mean_over_ranks(counts: torch.Tensor) -> torch.Tensor:
    """Return the mean over all processes, the same in each; `counts` is overwritten."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return counts
    distributed.all_reduce(counts)
    return counts / distributed.get_world_size()


def full_precision(prediction: torch.Tensor) -> torch.Tensor:
    """Return the prediction in float32; float64 stays as it is."""
    return prediction if prediction.dtype == torch.float64 else prediction.float()


def pixel_weights(targets: BatchTargets, config: LossConfig) -> torch.Tensor:
    """Return pixel weights, shape of `inside`: 1 inside and within the rim of annotated objects, `far` elsewhere."""
    inside = targets.inside.float()
    if config.far == 1:
        return torch.ones_like(inside)
    pool = functional.max_pool2d if inside.ndim == 3 else functional.max_pool3d
    near = pool(inside[:, None], 2 * config.rim + 1, stride=1, padding=config.rim)[:, 0]
    return config.far + (1 - config.far) * near
