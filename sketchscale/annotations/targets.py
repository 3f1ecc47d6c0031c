"""Turn a sketch (or dense labels) into training targets: distance and flow, and where they are known for certain.

Distances are measured to *cracks*, the edges between 4-neighbouring pixels, from pixel centres, on the doubled lattice:

    lattice row   0   1   2   3   4          pixel (i, j) sits at (2 i + 1, 2 j + 1);
                    ┌───┬───┐                the crack between (i, j) and (i, j + 1) at (2 i + 1, 2 j + 2).
              1     │ a ╎ b │                Squared distances are integers there (4 x square pixels), so the
                    └───┴───┘                comparison that decides what is known is exact.

Every crack is one of four kinds, by the pixels at its sides:

  * B, a boundary for certain: two different regions (object ids, background);
  * R, at the side of a boundary stroke, that is of drawn pixels: the boundary lies somewhere in the stroke;
  * U, perhaps a boundary: at least one side unknown, none drawn;
  * none: the same region on both sides, or one side beyond the image (the border of a whole image is no boundary).

With E the cracks of the truth, B ⊆ E, and E is in B, in U, or between the sides R of strokes. So the distance to E is

    at least  lower = min(dist_B, dist_R, dist_U)        nothing that can be a boundary is nearer
    at most   upper = min(dist_B, dist_beyond, reach)    a stroke has E within its width; see annotations.strokes

at every pixel. dist_beyond is that to background beyond a stroke, which the outline of an object may have, and an
interface between two objects has not. Where dist_B is the least it is the distance: that is the valid set D. Where
dist_R is, lower and upper differ by about the stroke's width: two-sided bounds. A crop is cut from its image with
unknown pixels around it (see training.patches), so its border is U and needs no further rule.

Conventions: the first pixel inside an object is at distance 0.5; background is the constant `outside`; the flow is the
unit gradient (towards larger distance, y component first) of the object's own distance smoothed by a Gaussian of sigma
1, cut at 2 px. In that 5 x 5 window the object's own pixels are those of its id that are 4-connected to the middle
inside the window; all others count as -0.5. So a pixel's flow is known where it and its own pixels are in D and no
unknown pixel can be reached; what lies behind a drawn line does not matter. Beside strokes it is the gradient of the
distance to their sides, which points the same way. Drawn pixels belong to no object and have neither distance nor flow.

Losses of the Omnipose and the eikonal family need two things more. *Boundary pixels*: those of an object beside a crack
B, and the centre line of strokes; of other pixels in a stroke, or beside one, it is not known. No boundary pixel is one
of background, or of an object without any crack beside it. *Signed distance*: in objects the distance; in background
minus the distance to the nearest crack of an object, with the same comparisons; on a drawn pixel within +-reach.

All of this is for planes. Volumes have equalities beside strokes instead, and three components of flow; see space.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from sketchscale.annotations.cracks import BEYOND, DRAWN, FAR, UNKNOWN, pixels, squared_distances
from sketchscale.annotations.space import fields_in_space, squared_distances_in_space
from sketchscale.annotations.strokes import stroke_reach
from sketchscale.errors import InputError

__all__ = ["BEYOND", "UNKNOWN", "Targets", "region_codes", "targets_from_sketch", "two_sided_pixels"]

_REACH = 2
_WINDOW = 2 * _REACH + 1
_NOT_LAST = sum(1 << n for n in range(_WINDOW * _WINDOW) if n % _WINDOW != _WINDOW - 1)
_NOT_FIRST = sum(1 << n for n in range(_WINDOW * _WINDOW) if n % _WINDOW != 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """The targets of a network, and where they are known.

    Attributes:
        flow: (2, y, x), unit vectors inside objects, 0 elsewhere (and at the middle of a symmetric object).
        distance: (y, x), px to the object's boundary, >= 0.5 inside; `outside` in background; 0 where not known.
        known: (y, x), where `distance` is exact: D and the background.
        flow_known: (y, x), where `flow` is exact, or that away from a stroke: a subset of `two_sided` and background.
        lower, upper: (y, x), px, bounds of the signed distance where `bounded`, and 0 elsewhere; may be infinite.
        bounded: (y, x), where bounds are known and no exact distance: annotated foreground outside D, drawn pixels,
            and, if signed distances are wanted, background beside strokes.
        two_sided: (y, x), annotated foreground whose nearest possible boundary is certain or drawn, not only unknown:
            D, and where the bounds differ by about the width of a stroke.
        inside, background: (y, x), annotated as object, or as background; a drawn pixel is neither.
        boundary: (y, x), boundary pixels. boundary_known: where it is certain whether a pixel is one.
        signed: (y, x), px, the signed distance: at least 0.5 inside, at most -0.5 in background; 0 where not known.
        signed_known: (y, x), where `signed` is exact.
        objects: (y, x), the number of the object on annotation that says which object it is, 0 elsewhere.
        ignored: (y, x), pixels left out of every term, also of terms that hold everywhere.
        edges: (1, y, x), how much the image changes from pixel to pixel, in any unit; (0, y, x) where no loss asks.
        start: (4, y, x), what the model that training starts from gives: flow, distance, and its distance less its
            threshold; (0, y, x) where there is none, or no loss asks.
        maps: (k, y, x), those of another target than flow, such as hover_maps; (0, y, x) where there is none.
    """

    flow: npt.NDArray[np.float32]
    distance: npt.NDArray[np.float32]
    known: npt.NDArray[np.bool_]
    flow_known: npt.NDArray[np.bool_]
    lower: npt.NDArray[np.float32]
    upper: npt.NDArray[np.float32]
    bounded: npt.NDArray[np.bool_]
    two_sided: npt.NDArray[np.bool_]
    inside: npt.NDArray[np.bool_]
    background: npt.NDArray[np.bool_]
    boundary: npt.NDArray[np.bool_]
    boundary_known: npt.NDArray[np.bool_]
    signed: npt.NDArray[np.float32]
    signed_known: npt.NDArray[np.bool_]
    objects: npt.NDArray[np.int32]
    ignored: npt.NDArray[np.bool_]
    edges: npt.NDArray[np.float32]
    start: npt.NDArray[np.float32]
    maps: npt.NDArray[np.float32]


def targets_from_sketch(
    labels: npt.NDArray[Any],
    boundary: npt.NDArray[np.bool_] | None = None,
    *,
    outside: float = -5.0,
    signed: bool = True,
    spacing: Sequence[float] | None = None,
) -> Targets:
    """Return the targets of a sketch; dense labels are the special case without unknown pixels.

    Args:
        labels: (y, x) or (z, y, x) integers: k > 0 object, 0 background, -1 unknown, `BEYOND` outside the image.
        boundary: shape of labels, drawn boundary pixels; None for none. The label below a drawn pixel is ignored.
        outside: px, the target distance in background; below 0.
        signed: whether signed distances are wanted; they take a third of the time. Without, they are known nowhere.
        spacing: of the axes of a volume, relative to the last; None for 1. Planes have 1. See annotations.space.

    Returns:
        Targets on the same grid, of volumes with z before y, and three components of flow. An object with no boundary
        anywhere (it fills the image) is neither known nor bounded, as its distance is not defined. Empty input gives
        empty targets.

    Raises:
        InputError: shapes differ, labels are no integers, or `outside` is not below 0.

    Source: Sketchpose (journal), theorem on valid distances; the crack grid and the flow's window are ours.

    >>> t = targets_from_sketch(np.array([[0, 1, 1, 1, -1, -1]]))
    >>> t.distance[0].tolist(), t.known[0].tolist()
    ([-5.0, 0.5, 1.5, 0.0, 0.0, 0.0], [True, True, True, False, False, False])
    >>> float(t.lower[0, 3]), float(t.upper[0, 3])
    (0.5, 2.5)
    >>> t.signed[0].tolist(), t.boundary[0].tolist()
    ([-0.5, 0.5, 1.5, 0.0, 0.0, 0.0], [False, True, False, False, False, False])
    """
    if not outside < 0:
        raise InputError.of(found=f"outside = {outside}", expected="below 0", fix="leave it at -5")
    codes = region_codes(labels, boundary)
    planar = codes.ndim == 2
    found = _fields_in_plane(codes, outside, signed) if planar else fields_in_space(codes, spacing, outside, signed)
    return Targets(
        **found,
        inside=codes > 0,
        background=codes == 0,
        objects=np.maximum(codes, 0),
        ignored=np.zeros(codes.shape, np.bool_),
        edges=np.zeros((0, *codes.shape), np.float32),
        start=np.zeros((0, *codes.shape), np.float32),
        maps=np.zeros((0, *codes.shape), np.float32),
    )


def _fields_in_plane(codes: npt.NDArray[np.int32], outside: float, signed: bool) -> dict[str, npt.NDArray[Any]]:
    """Return the fields of `Targets` that depend on distances, by name."""
    inside, background, drawn = codes > 0, codes == 0, codes == DRAWN
    none = np.zeros_like(inside)
    to_edge, to_unknown, to_stroke, across = squared_distances(codes, inside, background if signed else none)
    nearest = np.minimum(np.minimum(to_edge, to_unknown), to_stroke)
    exact = (to_edge == nearest) & (nearest < FAR)
    beside = np.minimum(to_edge, to_stroke)
    two_sided = inside & (beside == nearest) & (nearest < FAR)
    flow, flow_known = _flow(codes, np.where(two_sided, pixels(beside), 0).astype(np.float32), two_sided)
    below = np.where(background, -pixels(to_edge), pixels(to_edge))
    reach, line = stroke_reach(drawn, codes == BEYOND)
    near, far = pixels(nearest), np.minimum(pixels(np.minimum(to_edge, across)), reach)
    bounded = inside & ~exact & (nearest < FAR)
    bounded |= (drawn | background & ~exact & signed) & (reach < np.inf)
    on_edge = inside & exact & (to_edge == 1)
    return {
        "flow": flow,
        "distance": np.where(background, outside, np.where(exact, below, 0)).astype(np.float32),
        "known": inside & exact | background,
        "flow_known": flow_known,
        "lower": np.where(bounded, np.where(inside, near, -far), 0).astype(np.float32),
        "upper": np.where(bounded, np.where(background, -near, far), 0).astype(np.float32),
        "bounded": bounded,
        "two_sided": two_sided,
        "boundary": on_edge | line,
        "boundary_known": on_edge | (inside & (nearest > 1)) | line | background,
        "signed": np.where(exact & signed, below, 0).astype(np.float32),
        "signed_known": exact & signed,
    }


def two_sided_pixels(labels: npt.NDArray[Any], boundary: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.bool_]:
    """Return `Targets.two_sided` alone: where in objects a boundary is known that gives distances.

    Args:
        labels, boundary: as of `targets_from_sketch`, with a spacing of 1.

    >>> two_sided_pixels(np.array([[0, 1, 1, 1, -1, -1]]), None)[0].tolist()
    [False, True, True, False, False, False]
    """
    codes = region_codes(labels, boundary)
    inside = codes > 0
    if codes.ndim == 2:
        to_edge, to_unknown, to_stroke, _ = squared_distances(codes, inside, np.zeros_like(inside))
        to_edge = np.minimum(to_edge, to_stroke)
    else:
        to_edge, to_unknown = (squared_distances_in_space(codes, (1,) * codes.ndim, kind) for kind in (1, 2))
    known: npt.NDArray[np.bool_] = inside & (to_edge < FAR) & (to_edge <= to_unknown)
    return known


def region_codes(labels: npt.NDArray[Any], boundary: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.int32]:
    """Return labels and drawn boundary as one int32 array: k, 0, -1 unknown, -2 drawn, -3 beyond.

    Raises:
        InputError: not integers below 2^31 with two or three axes, or a boundary of another shape.
    """
    if labels.ndim not in (2, 3) or labels.dtype.kind not in "iu":
        raise InputError.of(
            found=f"labels of shape {labels.shape}, {labels.dtype}",
            expected="(y, x) or (z, y, x) integers",
            fix="cast the labels",
        )
    if labels.size and int(labels.max()) > np.iinfo(np.int32).max:
        raise InputError.of(found=f"label {int(labels.max())}", expected="ids below 2^31", fix="number ids from 1")
    codes = labels.astype(np.int32)
    if boundary is None:
        return codes
    if boundary.shape != labels.shape or boundary.dtype != np.bool_:
        raise InputError.of(
            found=f"boundary of shape {boundary.shape}, {boundary.dtype}",
            expected=f"bool of shape {labels.shape}, as the labels",
            fix="rasterise both over the same box",
        )
    codes[boundary & (codes != BEYOND)] = DRAWN
    return codes


@numba.njit(cache=True, nogil=True)
def _flow(
    codes: npt.NDArray[np.int32], distance: npt.NDArray[np.float32], exact: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return the flow of all pixels, and where it is known."""
    h, w = codes.shape
    flow = np.zeros((2, h, w), np.float32)
    known = np.zeros((h, w), np.bool_)
    heights = np.empty(_WINDOW * _WINDOW, np.float64)
    for i in range(h):
        for j in range(w):
            if codes[i, j] == 0:
                known[i, j] = True
            if exact[i, j] and _look_around(codes, distance, exact, i, j, heights):
                gy, gx = _gradient(heights)
                norm = np.sqrt(gy * gy + gx * gx)
                known[i, j] = True
                if norm > 1e-6:
                    flow[0, i, j] = gy / norm
                    flow[1, i, j] = gx / norm
    return flow, known


@numba.njit(cache=True, nogil=True)
def _look_around(
    codes: npt.NDArray[np.int32],
    distance: npt.NDArray[np.float32],
    exact: npt.NDArray[np.bool_],
    i: int,
    j: int,
    heights: npt.NDArray[np.float64],
) -> bool:
    """Write the heights in the window, NaN beyond the image; return False if an unknown pixel could be the object's.

    Masks have one bit for each pixel of the window. The object may have every pixel that is reached from the middle
    through pixels of its id and unknown ones.
    """
    h, w = codes.shape
    mine, unknown = 0, 0
    for n in range(_WINDOW * _WINDOW):
        y, x = i + n // _WINDOW - _REACH, j + n % _WINDOW - _REACH
        inside = 0 <= y < h and 0 <= x < w and codes[y, x] != BEYOND
        heights[n] = -0.5 if inside else np.nan
        if inside and codes[y, x] == codes[i, j]:
            mine |= 1 << n
        elif inside and codes[y, x] == UNKNOWN:
            unknown |= 1 << n
    reached, grown = 0, 1 << (_WINDOW * _WINDOW // 2)
    while grown != reached:
        reached = grown
        grown |= (reached << _WINDOW) | (reached >> _WINDOW)
        grown |= ((reached & _NOT_LAST) << 1) | ((reached & _NOT_FIRST) >> 1)
        grown &= mine | unknown
    if reached & unknown:
        return False
    for n in range(_WINDOW * _WINDOW):
        if reached >> n & 1:
            y, x = i + n // _WINDOW - _REACH, j + n % _WINDOW - _REACH
            if not exact[y, x]:
                return False
            heights[n] = distance[y, x]
    return True


@numba.njit(cache=True, nogil=True)
def _gradient(heights: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the gradient, by a derivative of a Gaussian over pairs of opposite pixels.

    A pixel beyond the image continues the line through its opposite and the middle.
    """
    last = _WINDOW * _WINDOW - 1
    here = heights[last // 2]
    gy, gx = 0.0, 0.0
    for n in range(last // 2):
        a, b = heights[last - n] - here, heights[n] - here
        if np.isnan(a):
            a = -b
        if np.isnan(b):
            b = -a
        if np.isnan(a):
            continue
        dy, dx = _REACH - n // _WINDOW, _REACH - n % _WINDOW
        weight = np.exp(-(dy * dy + dx * dx) / 2.0)
        gy += weight * dy * (a - b)
        gx += weight * dx * (a - b)
    return gy, gx
