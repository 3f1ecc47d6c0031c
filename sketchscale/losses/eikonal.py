"""The eikonal loss of Sketchpose 2.0: a signed distance from points, curves and strokes, with or without outlines.

phi is positive inside objects, negative in background, px; v is the flow, of length 1 everywhere, and points uphill.
X all pixels, B those beside a known boundary, S0 and S1 the strokes; G phi the upwind gradient, see `upwind_gradient`:

    <(|v| - 1)^2>_X  +  <(|G phi| - 1)^2>_{X \\ B}  +  <|G phi - v|^2>_{X \\ B}        act everywhere, by design
    +  <(phi - b)^2>_B  +  <relu(phi + 1/2)^2>_S0  +  <relu(1/2 - phi)^2>_S1             the data
    +  5 <|v - v*|^2>_{D_v in S1}  +  0.08 <(phi - phi*)^2>_{D*}  +  0.08 / |S1| sum_{S1 \\ D} bounds    what they imply

Cracks as pixels. A boundary is a crack between pixels, where phi = 0; the centres beside it are half a pixel away, and
no pixel centre is nearer. So "phi = 0 on B" becomes phi = b on the pixels beside a crack, b = +1/2 inside an object,
-1/2 outside and on drawn pixels, and the hinges turn at half a pixel. At those pixels the slope is left out: the scheme
would see the wrong one where two objects touch (+1/2 beside +1/2) and at the steps of a slanted boundary.

A boundary that nobody drew runs where phi is predicted near 0. There (|phi| < 1) the terms of the slope weigh `near`.

The last three terms are ours, and can be set to 0: where the sketch determines distance and flow they are taught, phi*
in background down to `band` px. They do no harm to sketches without outlines, where D is empty.

A distance is known from the boundary inwards: a pixel follows from its neighbours nearer to the boundary, never they
from it. So the derivative of the slope is by the pixel itself, with its neighbours held fixed, and descent is the
iteration that solves the scheme. With the full derivative it stops at fields with false valleys, where a pit cannot
rise without making its neighbours too flat (a free field of 48 x 48 px: 4.6 px from the distance on average after 600
steps; with ours 0.2 px).

The printed functional, repaired: squares on the first two terms (else unbounded below), a signed gradient (the printed
one has no negative component), the scheme applied to -phi where phi < 0 (else the signed distance is no minimiser).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from sketchscale.losses.base import BatchTargets, LossConfig, Term, combined, full_precision
from sketchscale.losses.sketchpose import bounds_term

__all__ = ["EikonalConfig", "eikonal", "eikonal_terms", "upwind_gradient"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EikonalConfig(LossConfig):
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

    name: str = "eikonal"
    length: float = 1.0
    slope: float = 1.0
    coupling: float = 1.0
    boundary: float = 1.0
    sides: float = 1.0
    exponent: int = 2
    near: float = 0.2
    band: float = 8.0

    def __post_init__(self) -> None:
        LossConfig.__post_init__(self)
        self.expect_weights("length", "slope", "coupling", "boundary", "sides", "band")
        self.expect(self.exponent in (1, 2) and 0 < self.near <= 1, "1 or 2, above 0 and at most 1", "exponent", "near")


def eikonal(prediction: torch.Tensor, targets: BatchTargets, config: EikonalConfig) -> torch.Tensor:
    """Sketchpose 2.0 in two dimensions.

    Args:
        prediction: (n, 3, y, x), flow y, flow x, signed distance; any float type, computed in float32 at least.

    Returns:
        A scalar. Its terms of length, slope and coupling reach every pixel; the others only what the sketch knows.

    Source: Sketchpose 2.0, the functional of potential and flow, repaired; see the module.
    """
    values = full_precision(prediction)
    v, phi = values[:, :2], values[:, 2]
    beside = torch.where(targets.signed_known & (targets.signed.abs() == 0.5), targets.signed, 0.0)
    taught = targets.signed_known & (targets.signed >= -config.band)
    terms = eikonal_terms(phi, v, beside, targets.background, targets.inside, (1.0, 1.0), config)
    flow_error = ((v - targets.flow) ** 2).sum(dim=1)
    return combined(
        [
            *terms.values(),
            Term.mean(config.flow, flow_error, targets.flow_known & targets.inside),
            Term.mean(config.distance, (phi - targets.signed) ** 2, taught),
            bounds_term(phi, targets, config),
        ]
    )


def eikonal_terms(
    phi: torch.Tensor,
    v: torch.Tensor,
    boundary: torch.Tensor,
    background: torch.Tensor,
    foreground: torch.Tensor,
    spacing: Sequence[float],
    config: EikonalConfig,
) -> dict[str, Term]:
    """The six terms of the functional, in two or three dimensions.

    Args:
        phi: (n, y, x) or (n, z, y, x), in the unit of `spacing`.
        v: (n, 2, y, x) or (n, 3, z, y, x), in array order.
        boundary: shape of phi: the signed distance of pixels beside a known boundary (half a pixel along the axis on
            which it lies, minus half outside objects), 0 elsewhere.
        background, foreground: shape of phi, bool, the strokes.
        spacing: of the pixels along each axis, in array order.

    Returns:
        length, slope, coupling: everywhere. boundary, background, foreground: of the strokes alone.

    Source: Sketchpose 2.0, E(v, phi), repaired; see the module.
    """
    gradient, slope = upwind_gradient(phi, spacing)
    beside = boundary != 0
    weight = torch.where(phi.detach().abs() < min(spacing), config.near, 1.0)
    half = min(spacing) / 2
    length = ((v**2).sum(dim=1) + 1e-12).sqrt()
    return {
        "length": Term.mean(config.length, (length - 1) ** 2, torch.ones_like(beside)),
        "slope": Term.mean(config.slope, (slope - 1) ** 2, ~beside, weight),
        "coupling": Term.mean(config.coupling, ((gradient - v) ** 2).sum(dim=1), ~beside, weight),
        "boundary": Term.mean(config.boundary, (phi - boundary) ** 2, beside),
        "background": Term.mean(config.sides, functional.relu(phi + half) ** config.exponent, background),
        "foreground": Term.mean(config.sides, functional.relu(half - phi) ** config.exponent, foreground),
    }


def upwind_gradient(phi: torch.Tensor, spacing: Sequence[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """The upwind gradient: along each axis towards the neighbour nearer to the boundary, with its sign.

    Where phi >= 0 the difference to the smaller neighbour is taken, where phi < 0 that to the larger one, and 0 where
    neither is nearer to the boundary than the pixel itself. Beyond the border the border pixel is repeated.

    Args:
        phi: (n, y, x) or (n, z, y, x).
        spacing: of the pixels along each axis.

    Returns:
        gradient: (n, axes, ...), signed; 0 along an axis whose two neighbours are equally near (a ridge).
        slope: shape of phi, its length, in which such an axis counts. At a pixel nearer to 0 than all
            its neighbours, where the scheme has length 0 and no derivative, the difference to the nearest one, below
            0: so descent lifts a pit that no boundary explains.
        The derivatives of both are by the pixel itself, its neighbours held fixed; see the module.

    Source: Rouy and Tourin 1992; signs as in Sketchpose 2.0 repaired.

    >>> gradient, slope = upwind_gradient(torch.tensor([[[0.5, 1.5, 0.5, -0.5, -1.5]]]), (1.0, 1.0))
    >>> gradient[0, 1, 0].tolist(), slope[0, 0].round().tolist()
    ([0.0, 0.0, -1.0, -1.0, -1.0], [0.0, 1.0, 1.0, 1.0, 1.0])
    """
    with torch.no_grad():
        gradient, slope, turned, rate = _scheme(phi, spacing)
    moved = phi - phi.detach()
    return gradient + turned * moved[:, None], slope + rate * moved


def _scheme(
    phi: torch.Tensor, spacing: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradient, slope, and the derivatives of both by the pixel itself."""
    away = torch.where(phi < 0, -1.0, 1.0).to(phi.dtype)
    height = away * phi
    steps, signs, falls = [], [], []
    for axis, size in enumerate(spacing, start=1):
        count = phi.shape[axis]
        before = torch.cat([phi.narrow(axis, 0, 1), phi.narrow(axis, 0, count - 1)], dim=axis)
        after = torch.cat([phi.narrow(axis, 1, count - 1), phi.narrow(axis, count - 1, 1)], dim=axis)
        down, up = height - away * before, height - away * after
        fall = torch.maximum(down, up) / size
        # Of two equal ones neither side is taken: half of each, with opposite signs, is 0.
        sign = torch.sign(down - up) * (fall > 0)
        steps.append(away * sign * fall)
        signs.append(sign / size)
        falls.append(fall)
    slopes = torch.stack(falls, dim=1)
    inverse = torch.tensor([1 / size for size in spacing], dtype=phi.dtype, device=phi.device)
    positive = slopes.clamp(min=0)
    length = ((positive**2).sum(dim=1) + 1e-12).sqrt()
    steepest, which = slopes.max(dim=1)
    pit = steepest <= 0
    rate = torch.einsum("nk...,k->n...", positive, inverse) / length
    return (
        torch.stack(steps, dim=1),
        torch.where(pit, steepest, length),
        torch.stack(signs, dim=1),
        away * torch.where(pit, inverse[which], rate),
    )
