"""The eikonal loss of Sketchpose 2.0: a signed distance from points, curves and strokes, with or without outlines.

phi is positive inside objects, negative in background, px; v is the flow, and points uphill. X all pixels but those
that are marked to be ignored, B those beside a known boundary, R those in boundary strokes, S0 and S1 the strokes:

    <(phi - b)^2, in R relu(|phi| - r)^2>_{B + R}  +  <relu(phi + 1/2)^2>_S0  +  <relu(1/2 - phi)^2>_S1     the data
    +  5 <|v - v*|^2>_{D_v in S1}  +  0.08 <e^2>_{D*}  +  0.08 / |S1| sum_{S1 \\ D*} e^2              what they imply
    +  a^2 ( 0.08 <(phi - psi)^2>_{X \\ D*}  +  5 <|v - grad psi|^2>_{X \\ D_v} )                      the equation

psi is the solution of |grad psi| = 1 on the whole patch whose zeros are those of phi, moved towards edges of the image
and parted between strokes of different objects; see losses.lands. e is the distance from phi to what is possible: to
phi* where it is known, to its bounds elsewhere; D* holds the pixels beside boundary strokes, too. The flow of psi is 0
outside objects, as in all losses of flow here. a, from 0 to 1, says how far phi agrees with the strokes: the solution
of a field that has not learned them is of no use. In background all distances are cut at `band` px.

*From a start model*, its outputs take the place of the solution as far as it agrees with the strokes: with s its
agreement on a batch at its own threshold, the last line is multiplied by 1 - s^4, and s^4 times the squared differences
to the outputs of the start model are added, with the same weights, off the strokes that it has on the wrong side. So a
model that knows such images forgets nothing, and one of another kind of image is left behind. (Li and Hoiem 2016.)

The paper has the residual of the equation instead of its solution; G phi is the upwind gradient of `upwind_gradient`:

    1 <(|v| - 1)^2>_X  +  1 <(|G phi| - 1)^2>_{X \\ B}  +  1 <|G phi - v|^2>_{X \\ B}

These weights are 0 here. Curves inside 20 objects of one fluorescence image, 250 steps, six other images, AP 0.5 at the
best of four thresholds (full outlines: .81): residual alone .43, solution alone .70, both (weights .1) .69 and a longer
step. The residual finds boundaries as well, but carries no flow into the objects: |v| stays near 1/2.

Cracks as pixels. A boundary is a crack between pixels, where phi = 0; the centres beside it are half a pixel away, and
no pixel centre is nearer. So "phi = 0 on B" becomes phi = b on the pixels beside a crack, b = +1/2 inside an object,
-1/2 outside, and the hinges turn at half a pixel. At those pixels the slope is left out: the scheme would see the wrong
one where two objects touch (+1/2 beside +1/2) and at the steps of a slanted boundary.

A boundary stroke has the boundary somewhere in it. So on its pixels nothing holds but |phi| <= r, the reach of the
stroke (see annotations.strokes), and beside it phi has the bounds that follow. Of the solution, phi is held below 0 on
the centre line, so that objects at both sides stay apart; to what it is in strokes nothing is pulled.

A boundary that no one drew runs where phi is predicted near 0. There (|phi| < 1) the terms of the slope weigh `near`.

Where the sketch determines distance and flow these are learned as they are, in the terms with D; of sketches without
outlines D is empty.

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
from typing import ClassVar

import torch
from torch.nn import functional

from sketchscale.losses.base import BatchTargets, LossConfig, Term, combined, full_precision
from sketchscale.losses.lands import agreement_with_strokes, choose_level, solve
from sketchscale.losses.sketchpose import beside_thin_lines, between_bounds, bounds_term

__all__ = ["EikonalConfig", "eikonal", "eikonal_terms", "pulls", "upwind_gradient"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EikonalConfig(LossConfig):
    """The settings of `eikonal` besides flow, distance and bounds.

    With length, slope and coupling at 1 and the two solved ones, flow, distance and bounds at 0 it is the paper's.

    Attributes:
        length: weight of (|v| - 1)^2, everywhere.
        slope: weight of (|grad phi| - 1)^2, off the known boundary.
        coupling: weight of |grad phi - v|^2, off the known boundary.
        solved_distance, solved_flow: weights of the pulls to the solution of the equation, where the sketch does not
            determine distance or flow.
        start: weight of the pull to the start model, relative to that to the solution.
        trust: exponent of the agreement by which these two are multiplied; 0 for always.
        boundary: weight of the squared error of phi beside the known boundary.
        sides: weight of the hinges that keep phi on its side of 0, on background and on foreground strokes.
        exponent: of these hinges, 1 or 2.
        near: weight, in the terms of the slope, of pixels where |phi| < 1: a boundary that no one drew runs there,
            where the slope of a distance need not be 1. Relative to the other pixels; above 0, as a field that is flat
            at 0 would cost nothing.
        band: px, the deepest background in which distances are learned; beyond it phi is only kept below -1/2.
    """

    weights: ClassVar[tuple[str, ...]] = (
        *LossConfig.weights,
        *("length", "slope", "coupling", "solved_distance", "solved_flow", "boundary", "sides"),
    )

    name: str = "eikonal"
    length: float = 0.0
    slope: float = 0.0
    coupling: float = 0.0
    solved_distance: float = 0.08
    solved_flow: float = 5.0
    start: float = 1.0
    trust: float = 2.0
    boundary: float = 1.0
    sides: float = 1.0
    exponent: int = 2
    near: float = 0.2
    band: float = 5.0

    def __post_init__(self) -> None:
        LossConfig.__post_init__(self)
        self.expect_weights("band", "trust", "start")
        self.expect(self.exponent in (1, 2) and 0 < self.near <= 1, "1 or 2, above 0 and at most 1", "exponent", "near")


def eikonal(prediction: torch.Tensor, targets: BatchTargets, config: EikonalConfig) -> torch.Tensor:
    """Return the loss of Sketchpose 2.0.

    Args:
        prediction: (n, 3, y, x), flow y, flow x, signed distance, or (n, 4, z, y, x), flow z first; any float type,
            computed in float32 at least.

    Returns:
        A scalar. The terms of the equation reach every pixel that is not ignored; the others only what the sketch
        determines.

    Source: Sketchpose 2.0, the functional of potential and flow, repaired; see the module.
    """
    values, axes = full_precision(prediction), prediction.ndim - 2
    v, phi = values[:, :axes], values[:, axes]
    spacing = (config.anisotropy, 1.0, 1.0)[-axes:]
    possible = torch.where(targets.bounded, between_bounds(phi, targets), targets.signed)
    beside = torch.where(targets.signed_known & (targets.signed.abs() == 0.5), targets.signed, 0.0)
    beside = torch.where(_in_strokes(targets), possible, beside)
    learned = targets.signed_known & (targets.signed >= -config.band) | _beside_strokes(targets, config)
    everywhere = ~targets.ignored
    terms = eikonal_terms(phi, v, beside, targets.background, targets.inside, spacing, config, everywhere)
    flow_error = ((v - targets.flow) ** 2).sum(dim=1)
    return combined(
        [
            *terms.values(),
            *pulls(phi, v, targets, config),
            Term.mean(config.flow, flow_error, targets.flow_known & targets.inside),
            Term.mean(config.distance, (phi - possible) ** 2, learned),
            bounds_term(phi, targets, config),
        ]
    )


def _beside_strokes(targets: BatchTargets, config: EikonalConfig) -> torch.Tensor:
    """Return the pixels with bounds by a boundary stroke: beside thin lines, and of background up to `band` px away."""
    return beside_thin_lines(targets) | targets.bounded & targets.background & (targets.lower >= -config.band)


def _in_strokes(targets: BatchTargets) -> torch.Tensor:
    return targets.bounded & ~targets.inside & ~targets.background


def pulls(phi: torch.Tensor, v: torch.Tensor, targets: BatchTargets, config: EikonalConfig) -> list[Term]:
    """Return the terms that pull distance and flow to the solution of the equation, and to a start model if given.

    Args:
        phi: (n, y, x), px. v: (n, 2, y, x).

    Returns:
        Terms on pixels that the sketch does not determine and that are not ignored; none with weights of 0.
    """
    if config.solved_distance == config.solved_flow == 0:
        return []
    if targets.start.shape[1] == 0 or config.start == 0:
        return _to_solution(phi, v, targets, config, 1.0)
    known = agreement_with_strokes(targets.start[:, -1], targets) ** 4
    return [*_to_start(phi, v, targets, config, known), *_to_solution(phi, v, targets, config, 1 - known)]


def _to_start(
    phi: torch.Tensor, v: torch.Tensor, targets: BatchTargets, config: EikonalConfig, share: float
) -> list[Term]:
    flow, distance, above = targets.start[:, :-2], targets.start[:, -2], targets.start[:, -1] > 0
    wrong = (targets.inside & ~above) | (targets.background & above)
    where = ~(wrong | targets.ignored | (targets.signed_known & targets.inside))
    weight = share * config.start
    return [
        Term.mean(weight * config.solved_distance, (phi - distance) ** 2, where),
        Term.mean(weight * config.solved_flow, ((v - flow) ** 2).sum(dim=1), where),
    ]


def _to_solution(
    phi: torch.Tensor, v: torch.Tensor, targets: BatchTargets, config: EikonalConfig, share: float
) -> list[Term]:
    level, agreement = choose_level(phi, targets)
    with torch.no_grad():
        shifted = phi - level
        held = torch.where(targets.inside, shifted.clamp(min=0.5), shifted)
        held = torch.where(targets.background | targets.boundary & ~targets.inside, held.clamp(max=-0.5), held)
    solution = solve(held, targets.objects, config.anisotropy)
    aim, free = solution.signed.clamp(min=-config.band), ~(targets.ignored | _in_strokes(targets))
    near = solution.signed_known & ~targets.signed_known & free & ((aim > -config.band) | (phi.detach() > -config.band))
    flow = torch.where((solution.signed > 0)[:, None], solution.flow, 0.0)
    flowing = (solution.flow_known | (solution.signed < 0)) & ~(targets.flow_known & targets.inside) & free
    trust = share * agreement**config.trust
    return [
        Term.mean(trust * config.solved_distance, (phi - aim) ** 2, near),
        Term.mean(trust * config.solved_flow, ((v - flow) ** 2).sum(dim=1), flowing),
    ]


def eikonal_terms(
    phi: torch.Tensor,
    v: torch.Tensor,
    boundary: torch.Tensor,
    background: torch.Tensor,
    foreground: torch.Tensor,
    spacing: Sequence[float],
    config: EikonalConfig,
    everywhere: torch.Tensor | None = None,
) -> dict[str, Term]:
    """Return the six terms of the paper's functional, in two or three dimensions.

    Args:
        phi: (n, y, x) or (n, z, y, x), in the unit of `spacing`.
        v: (n, 2, y, x) or (n, 3, z, y, x), in array order.
        boundary: shape of phi: the signed distance of pixels beside a known boundary (half a pixel along the axis on
            which it lies, minus half outside objects), 0 elsewhere.
        background, foreground: shape of phi, bool, the strokes.
        spacing: of the pixels along each axis, in array order.
        everywhere: shape of phi, bool, where the equation holds; None for all pixels.

    Returns:
        length, slope, coupling: everywhere, those with a weight of 0 left out. boundary, background, foreground: of
        the strokes alone.

    Source: Sketchpose 2.0, E(v, phi), repaired; see the module.
    """
    beside, half = boundary != 0, min(spacing) / 2
    everywhere = torch.ones_like(beside) if everywhere is None else everywhere
    return {
        **_residuals(phi, v, everywhere, everywhere & ~beside, spacing, config),
        "boundary": Term.mean(config.boundary, (phi - boundary) ** 2, beside),
        "background": Term.mean(config.sides, functional.relu(phi + half) ** config.exponent, background),
        "foreground": Term.mean(config.sides, functional.relu(half - phi) ** config.exponent, foreground),
    }


def _residuals(
    phi: torch.Tensor,
    v: torch.Tensor,
    everywhere: torch.Tensor,
    off: torch.Tensor,
    spacing: Sequence[float],
    config: EikonalConfig,
) -> dict[str, Term]:
    """Return the errors of the equation at each pixel; terms without a weight are not computed."""
    terms = {}
    if config.length:
        length = ((v**2).sum(dim=1) + 1e-12).sqrt()
        terms["length"] = Term.mean(config.length, (length - 1) ** 2, everywhere)
    if config.slope or config.coupling:
        gradient, slope = upwind_gradient(phi, spacing)
        weight = torch.where(phi.detach().abs() < min(spacing), config.near, 1.0)
        terms["slope"] = Term.mean(config.slope, (slope - 1) ** 2, off, weight)
        terms["coupling"] = Term.mean(config.coupling, ((gradient - v) ** 2).sum(dim=1), off, weight)
    return terms


def upwind_gradient(phi: torch.Tensor, spacing: Sequence[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the upwind gradient: along each axis towards the neighbour nearer to the boundary, with its sign.

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
    """Return gradient and slope, and the derivatives of both by the pixel itself."""
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
