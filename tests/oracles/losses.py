"""Losses pixel by pixel, in float64, for full masks: no valid sets, no vectorised schemes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sketchscale.losses import EikonalConfig, LossConfig, OmniposeConfig

Floats = npt.NDArray[np.float64]


def upwind(phi: Floats, spacing: Sequence[float]) -> tuple[Floats, Floats]:
    """Signed upwind gradient (axes, ...) and slope, one pixel at a time; see losses.eikonal.upwind_gradient."""
    gradient, slope = np.zeros((phi.ndim, *phi.shape)), np.zeros(phi.shape)
    for at in np.ndindex(phi.shape):
        sign = -1.0 if phi[at] < 0 else 1.0
        best = []
        for axis, size in enumerate(spacing):
            descents = []
            for by in (-1, 1):
                place = list(at)
                place[axis] = min(max(at[axis] + by, 0), phi.shape[axis] - 1)
                descents.append(sign * (phi[at] - phi[tuple(place)]) / size)
            best.append(max(descents))
            if best[-1] > 0 and descents[0] != descents[1]:
                gradient[(axis, *at)] = sign * (descents[0] if descents[0] > descents[1] else -descents[1])
        slope[at] = np.sqrt(sum(max(b, 0.0) ** 2 for b in best)) if max(best) > 0 else max(best)
    return gradient, slope


def follow(flow: Floats, start: tuple[int, int], steps: int) -> Floats:
    """(steps, 2): where Euler steps lead from a pixel, kept in the image."""
    last = np.array(flow.shape[1:]) - 1
    at, path = np.array(start, np.float64), []
    for _ in range(steps):
        at = at + [float(ndimage.map_coordinates(part, at[:, None], order=1, mode="nearest")[0]) for part in flow]
        at = np.clip(at, 0, last)
        path.append(at)
    return np.array(path)


def starts(shape: Sequence[int], stride: int) -> list[tuple[int, int]]:
    """Every stride-th pixel, row by row."""
    rows, columns = (range(min(stride // 2, n - 1), n, stride) for n in shape)
    return [(y, x) for y in rows for x in columns]


def dense(prediction: Floats, flow: Floats, distance: Floats, config: LossConfig) -> float:
    """Plain means of one image: prediction (3 or more, y, x), flow (2, y, x), distance (y, x)."""
    flow_error = ((prediction[:2] - flow) ** 2).sum(axis=0).mean()
    return float(config.flow * flow_error + config.distance * ((prediction[2] - distance) ** 2).mean())


def dense_omnipose(
    prediction: Floats,
    flow: Floats,
    distance: Floats,
    boundary: npt.NDArray[np.bool_],
    inside: npt.NDArray[np.bool_],
    config: OmniposeConfig,
) -> float:
    """The six terms of one image with a full mask; the inequality has nothing to say."""
    rho = config.beta + np.exp(-np.maximum(distance, 0) / config.alpha)
    logit = prediction[3]
    crossed = np.log1p(np.exp(-np.abs(logit))) + np.maximum(logit, 0) - logit * boundary
    lengths = (np.sqrt((f**2).sum(axis=0)) for f in (prediction[:2], flow))
    norm_error = np.subtract(*lengths) ** 2
    total = config.boundary * crossed.mean()
    total += config.flow * np.average(((prediction[:2] - flow) ** 2).sum(axis=0), weights=rho)
    total += config.distance * np.average((prediction[2] - distance) ** 2, weights=rho)
    total += config.norm * np.average(norm_error[inside], weights=rho[inside]) if inside.any() else 0.0
    apart = []
    for start in starts(distance.shape, config.stride):
        pair = [follow(f, start, config.steps) for f in (prediction[:2], flow)]
        apart.append(((pair[0] - pair[1]) ** 2).sum(axis=1).mean() / 2)
    return float(total + config.euler * np.mean(apart))


def dense_eikonal(
    prediction: Floats, flow: Floats, signed: Floats, inside: npt.NDArray[np.bool_], config: EikonalConfig
) -> float:
    """The functional and the supervised terms of one image with a full mask, from its signed distance alone."""
    v, phi = prediction[:2], prediction[2]
    gradient, slope = upwind(phi, (1.0, 1.0))
    beside = np.abs(signed) == 0.5
    weight = np.where(np.abs(phi) < 1, config.near, 1.0)[~beside]
    total = config.length * ((np.sqrt((v**2).sum(axis=0)) - 1) ** 2).mean()
    total += config.slope * np.average(((slope - 1) ** 2)[~beside], weights=weight)
    total += config.coupling * np.average(((gradient - v) ** 2).sum(axis=0)[~beside], weights=weight)
    total += config.boundary * ((phi - signed) ** 2)[beside].mean()
    for side, sign in ((inside, 1), (~inside, -1)):
        total += config.sides * (np.maximum(0.5 - sign * phi, 0) ** config.exponent)[side].mean()
    total += config.flow * ((v - flow) ** 2).sum(axis=0)[inside].mean()
    return float(total + config.distance * ((phi - signed) ** 2)[signed >= -config.band].mean())


def lands(phi: npt.NDArray[np.float32], objects: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Flood in the order of falling phi, with sets of pixels; see losses.lands. Heights differ from one another."""
    of: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    number: dict[int, int] = {}
    for at in sorted(np.ndindex(phi.shape), key=lambda at: -phi[at]):
        if phi[at] <= 0:
            break
        of[at] = {at}
        number[id(of[at])] = int(objects[at])
        ways = np.eye(phi.ndim, dtype=int)
        around = [tuple((np.array(at) + way).tolist()) for way in (*-ways, *ways[::-1])]
        for other in sorted((q for q in around if q in of), key=lambda q: -phi[q]):
            mine, theirs = of[at], of[other]
            a, b = number[id(mine)], number[id(theirs)]
            if mine is not theirs and (a == 0 or b == 0 or a == b):
                mine |= theirs
                number[id(mine)] = max(a, b)
                for pixel in theirs:
                    of[pixel] = mine
    out = np.zeros(phi.shape, np.int32)
    for at, land in of.items():
        out[at] = number[id(land)] + 1
    return out
