"""The first Sketchpose loss: the terms of the Omnipose family, each on the pixels of which the sketch knows enough.

With d distance, v flow, b boundary logit; D the pixels of known distance, D_v of known flow, D_b those of which it is
known whether they are boundary pixels; C = D_v inside objects; rho = beta + exp(-d* / alpha), a weighted mean <.>:

    2 <BCE(b, b*)>_{D_b}  +  5 <rho |v - v*|^2>_{D_v}  +  0.08 <rho (d - d*)^2>_D  +  2 <rho (|v| - |v*|)^2>_C
        +  1 <|x_t - x*_t|^2 / 2>_{D_v, t = 1 .. 15}  +  0.08 / |S1| sum_{S1 \\ D} relu(lower - d)^2 + relu(d - upper)^2

x_t follows the flow from a pixel in unit steps, x_{t + 1} = x_t + v(x_t), x*_t the target flow; both fields are 0
outside D_v, where nothing is known, so no gradient leaves it and what a trajectory does beyond costs nothing.

Weights. Omnipose's code has 10, 2, 2, 2, 1 for flow, distance, norm, boundary, trajectory, with a flow of length 5, all
differences divided by 5 and means over both components. With our flow of length 1 and |.|^2 over both components that
is 10 / 2 = 5, 2 / 25 = 0.08, 2, 2 and 1 / 2 on |x - x*|^2. (The paper prints boundary and flow the other way round.)

The trajectories have the largest gradient of all terms, and most steps of a training are clipped because of them. With
a weight that balances them, fewer objects were found (benchmarks/results/loss_terms.txt).

Where the paper is silent or differs, ours: rho is that of the boundary, beta + 1, in all of background, whose distance
is a constant; means divide by the sum of their weights; a stroke's own rim is no statement about boundary pixels (it
is in D_b where cracks say so, see annotations.targets); the inequality has both of its sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional

from sketchscale.losses.base import BatchTargets, LossConfig, Term, combined, full_precision, pixel_weights
from sketchscale.losses.sketchpose import bounds_term, distance_term

__all__ = ["OmniposeConfig", "sample_flow", "sketchpose_1", "trajectories"]

_BOUNDARY = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class OmniposeConfig(LossConfig):
    """The settings of `sketchpose-1` besides flow, distance and bounds.

    Attributes:
        boundary: weight of the cross-entropy of the boundary logit.
        norm: weight of the squared error of the flow's length, inside objects.
        euler: weight of the squared distance of trajectories, px; per component, as the mean of both.
        steps: of a trajectory, 1 px each where the flow is a unit vector.
        stride: trajectories start at every stride-th pixel along both axes; 1 is the paper's, and slow.
        alpha, beta: px and none, of the pixel weight beta + exp(-distance / alpha).
    """

    weights: ClassVar[tuple[str, ...]] = (*LossConfig.weights, "boundary", "norm", "euler")

    name: str = "sketchpose-1"
    boundary: float = 2.0
    norm: float = 2.0
    euler: float = 1.0
    steps: int = 15
    stride: int = 4
    alpha: float = 5.0
    beta: float = 2.0

    def __post_init__(self) -> None:
        LossConfig.__post_init__(self)
        self.expect_weights("beta")
        self.expect(self.alpha > 0, "above 0", "alpha")
        self.expect(
            1 <= self.steps <= 100 and 1 <= self.stride <= 16, "1 to 100 steps, a stride of 1 to 16", "steps", "stride"
        )


def sketchpose_1(prediction: torch.Tensor, targets: BatchTargets, config: OmniposeConfig) -> torch.Tensor:
    """Return the loss of the Omnipose family on the pixels that a sketch determines.

    Args:
        prediction: (n, 4, y, x), flow y, flow x, distance, boundary logit; computed in float32 at least.

    Returns:
        A scalar; 0 with a gradient of 0 when nothing is annotated in the batch.

    Source: Sketchpose (preprint), eqs. 8 to 16; Omnipose, eqs. 3 to 7; see the module for what is ours.
    """
    values = full_precision(prediction)
    flow, distance, logit = values[:, :2], values[:, 2], values[:, _BOUNDARY]
    pixels = pixel_weights(targets, config)
    depth = torch.where(targets.bounded & targets.inside, targets.lower, targets.distance.clamp(min=0))
    rho = pixels * (config.beta + torch.exp(-depth / config.alpha))
    length_error = (_length(flow) - _length(targets.flow)) ** 2
    crossed = functional.binary_cross_entropy_with_logits(logit, targets.boundary.float(), reduction="none")
    return combined(
        [
            Term.mean(config.boundary, crossed, targets.boundary_known, pixels),
            Term.mean(config.flow, ((flow - targets.flow) ** 2).sum(dim=1), targets.flow_known, rho),
            distance_term(distance, targets, config, rho),
            Term.mean(config.norm, length_error, targets.flow_known & targets.inside, rho),
            _euler_term(flow, targets, config),
            bounds_term(distance, targets, config),
        ]
    )


def _length(flow: torch.Tensor) -> torch.Tensor:
    """Return the length (n, y, x) of a flow (n, 2, y, x); smooth at 0, where it is 1e-6 instead."""
    return ((flow**2).sum(dim=1) + 1e-12).sqrt()


def _euler_term(flow: torch.Tensor, targets: BatchTargets, config: OmniposeConfig) -> Term:
    """Return the squared distance of predicted from true trajectories that start where the flow is known."""
    known = targets.flow_known
    rows, columns = (_starts(size, config.stride) for size in known.shape[1:])
    start = known[:, rows, columns]
    frozen = known[:, None].float()
    with torch.no_grad():
        aim = trajectories(targets.flow.to(flow.dtype) * frozen, steps=config.steps, stride=config.stride)
    path = trajectories(flow * frozen, steps=config.steps, stride=config.stride)
    apart = ((path - aim) ** 2).sum(dim=2).mean(dim=0) / 2
    return Term.mean(config.euler, apart, start.flatten(1))


def trajectories(flow: torch.Tensor, *, steps: int, stride: int = 1) -> torch.Tensor:
    """Follow a flow by Euler steps of its own length.

    Args:
        flow: (n, 2, y, x), px per step, y first.
        steps: of each trajectory.
        stride: trajectories start at every stride-th row and column, from stride // 2 (or the last, if that is less).

    Returns:
        (steps, n, 2, points), px: positions (y, x) after each step, kept in the image; the gradient of a position does
        not see that it was kept.

    >>> flow = torch.zeros(1, 2, 3, 4)
    >>> flow[:, 1] = 1.0
    >>> trajectories(flow, steps=3)[:, 0, :, 5].tolist()
    [[1.0, 2.0], [1.0, 3.0], [1.0, 3.0]]
    """
    n, _, h, w = flow.shape
    rows, columns = (torch.arange(size, device=flow.device)[_starts(size, stride)] for size in (h, w))
    at = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).flatten(1).to(flow.dtype).expand(n, -1, -1)
    last = torch.tensor([[h - 1], [w - 1]], dtype=flow.dtype, device=flow.device)
    path = []
    for _ in range(steps):
        at = at + sample_flow(flow, at)
        at = at + (torch.minimum(at.clamp(min=0), last) - at).detach()
        path.append(at)
    return torch.stack(path)


def _starts(size: int, stride: int) -> slice:
    return slice(min(stride // 2, size - 1), None, stride)


def sample_flow(flow: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Return the flow at positions between pixels, by bilinear interpolation.

    Args:
        flow: (n, 2, y, x), at least 1 px along each axis.
        at: (n, 2, points), px, (y, x) within the image; pixel centres are integers.

    Returns:
        (n, 2, points), with gradients by flow and by position, at the border too (from within).
    """
    n, _, h, w = flow.shape
    y0 = at[:, 0].detach().floor().clamp(0, max(h - 2, 0))
    x0 = at[:, 1].detach().floor().clamp(0, max(w - 2, 0))
    dy, dx = (at[:, 0] - y0)[:, None], (at[:, 1] - x0)[:, None]
    here = (y0 * w + x0).long()
    below, right = (w if h > 1 else 0), (1 if w > 1 else 0)
    flat = flow.flatten(2)

    def corner(offset: int) -> torch.Tensor:
        return flat.gather(2, (here + offset)[:, None].expand(n, 2, -1))

    top = torch.lerp(corner(0), corner(right), dx)
    bottom = torch.lerp(corner(below), corner(below + right), dx)
    return torch.lerp(top, bottom, dy)
