"""Turn a sketch (or dense labels) into training targets: distance and flow, and where they are known for certain.

Distances are measured to *cracks*, the edges between 4-neighbouring pixels, from pixel centres, on the doubled lattice:

    lattice row   0   1   2   3   4          pixel (i, j) sits at (2 i + 1, 2 j + 1);
                    ┌───┬───┐                the crack between (i, j) and (i, j + 1) at (2 i + 1, 2 j + 2).
              1     │ a ╎ b │                Squared distances are integers there (4 x square pixels), so the
                    └───┴───┘                comparison that decides what is known is exact.

Every crack is one of three kinds, by the pixels at its sides:

  * B, a boundary for certain: two different regions (object ids, background, a drawn boundary pixel);
  * U, perhaps a boundary: at least one side unknown, and no drawn boundary pixel at either;
  * none: the same region on both sides, or one side beyond the image (the border of a whole image is no boundary).

With E the cracks of the truth, B ⊆ E ⊆ B ∪ U. Hence min(dist_B, dist_U) <= dist_E <= dist_B at every pixel, and where
dist_B <= dist_U the distance to the *true* boundary is dist_B: that is the valid set D. A crop is cut from its image
with unknown pixels around it (see training.patches), so its border is U and needs no further rule.

Conventions: the first pixel inside an object is at distance 0.5; background is the constant `outside`; the flow is the
unit gradient (towards larger distance, y component first) of the object's own distance smoothed by a Gaussian of sigma
1, cut at 2 px. In that 5 x 5 window the object's own pixels are those of its id that are 4-connected to the middle
inside the window; all others count as -0.5. So a pixel's flow is known where it and its own pixels are in D and no
unknown pixel can be reached; what lies behind a drawn line does not matter. A drawn boundary pixel belongs to no object
and has neither distance nor flow.

Losses of the Omnipose and the eikonal family need two things more. *Boundary pixels*: the drawn ones, and those of an
object beside a crack B; no boundary pixel is one of background, or of an object without any crack beside it. *Signed
distance*: in objects the distance; in background minus the distance to the nearest crack of an object, where a drawn
pixel counts as background and the same comparison of certain and possible cracks says where it is exact; -0.5 on drawn
pixels, by definition: they lie beside an object, in none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from sketchscale.annotations.space import flow_in_space, lattice_steps, squared_distances_in_space
from sketchscale.errors import InputError

__all__ = ["BEYOND", "UNKNOWN", "Targets", "region_codes", "targets_from_sketch"]

UNKNOWN = -1
"""Label of a pixel without annotation."""
BEYOND = -3
"""Label of a pixel outside the image, in crops that reach over its border."""
_DRAWN = -2

_FAR = np.iinfo(np.int64).max
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
        flow_known: (y, x), where `flow` is exact: a subset of `known`.
        lower, upper: (y, x), px, bounds of the distance where `bounded`; `upper` may be infinite.
        bounded: (y, x), annotated foreground outside D that has a finite lower bound.
        inside, background: (y, x), annotated as object, or as background; a drawn pixel is neither.
        boundary: (y, x), boundary pixels. boundary_known: where it is certain whether a pixel is one.
        signed: (y, x), px, the signed distance: at least 0.5 inside, at most -0.5 elsewhere; 0 where not known.
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
        spacing: of the axes, relative to the last; None for 1. Planes have 1. See annotations.space.

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
    inside, background, drawn = codes > 0, codes == 0, codes == _DRAWN
    grid = _Grid.of(codes, spacing)
    to_edge, to_unknown = grid.squared_distances(codes, inside)
    exact = inside & (to_edge <= to_unknown) & (to_edge < _FAR)
    distance = np.where(exact, grid.pixels(to_edge), 0).astype(np.float32)
    below, below_known = np.zeros_like(distance), np.zeros_like(exact)
    if signed:
        below, below_known = _signed(grid, codes, distance, exact)
    distance[background] = outside
    flow, flow_known = grid.flow(codes, distance, exact)
    half = grid.unit**2
    nearest = np.minimum(to_edge, to_unknown)
    bounded = inside & ~exact & (nearest < _FAR)
    return Targets(
        flow=flow,
        distance=distance,
        known=exact | background,
        flow_known=flow_known,
        lower=np.where(bounded, grid.pixels(nearest), 0).astype(np.float32),
        upper=np.where(bounded, grid.pixels(to_edge), 0).astype(np.float32),
        bounded=bounded,
        inside=inside,
        background=background,
        boundary=(inside & (to_edge == half)) | drawn,
        boundary_known=(inside & ((to_edge == half) | (to_unknown > half))) | drawn | background,
        signed=below,
        signed_known=below_known,
        objects=np.maximum(codes, 0),
        ignored=np.zeros_like(exact),
        edges=np.zeros((0, *codes.shape), np.float32),
        start=np.zeros((0, *codes.shape), np.float32),
        maps=np.zeros((0, *codes.shape), np.float32),
    )


@dataclass(frozen=True, slots=True)
class _Grid:
    """The axes of an annotation: lattice steps along each, and how many units of them are half a pixel."""

    spacing: tuple[float, ...]
    steps: tuple[int, ...]
    unit: int

    @classmethod
    def of(cls, codes: npt.NDArray[np.int32], spacing: Sequence[float] | None) -> _Grid:
        spacing = (1.0,) * codes.ndim if spacing is None or codes.ndim == 2 else tuple(spacing)
        return cls(spacing, *lattice_steps(spacing))

    def squared_distances(
        self, codes: npt.NDArray[np.int32], wanted: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the squared distances of the wanted pixels to the cracks B and U, in lattice units."""
        if codes.ndim == 2:
            return _squared_distances(codes, wanted)
        near, far = (squared_distances_in_space(codes, self.steps, kind) for kind in (1, 2))
        return np.where(wanted, near, _FAR), np.where(wanted, far, _FAR)

    def flow(
        self, codes: npt.NDArray[np.int32], distance: npt.NDArray[np.float32], exact: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Return the flow of all pixels, and where it is known."""
        return _flow(codes, distance, exact) if codes.ndim == 2 else flow_in_space(codes, distance, exact, self.spacing)

    def pixels(self, squared: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Convert squared lattice units to px; the largest integer becomes infinity."""
        return np.where(squared == _FAR, np.inf, np.sqrt(squared.astype(np.float64)) / (2 * self.unit))


def _signed(
    grid: _Grid, codes: npt.NDArray[np.int32], distance: npt.NDArray[np.float32], exact: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return the signed distance, and where it is exact."""
    background, drawn = codes == 0, codes == _DRAWN
    to_object, to_unknown = grid.squared_distances(np.where(drawn, 0, codes), background)
    known = background & (to_object <= to_unknown) & (to_object < _FAR)
    signed = np.where(known, -grid.pixels(to_object), distance).astype(np.float32)
    signed[drawn] = -0.5
    return signed, exact | known | drawn


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
    codes[boundary & (codes != BEYOND)] = _DRAWN
    return codes


@numba.njit(cache=True, nogil=True)
def _crack(a: int, b: int) -> int:
    """Return the kind of the crack between two neighbours: 1 boundary, 2 perhaps, 0 none."""
    if a == b or BEYOND in (a, b):
        return 2 if a == UNKNOWN and b == UNKNOWN else 0
    if UNKNOWN in (a, b):
        return 1 if _DRAWN in (a, b) else 2
    return 1


@numba.njit(cache=True, nogil=True)
def _column_distances(codes: npt.NDArray[np.int32], kind: int, far: int) -> npt.NDArray[np.int32]:
    """Return (y, 2 x + 1): from pixel row i the distance along the lattice column to the nearest crack of a kind."""
    h, w = codes.shape
    out = np.full((h, 2 * w + 1), far, np.int32)
    for i in range(h):
        for j in range(w - 1):
            if _crack(codes[i, j], codes[i, j + 1]) == kind:
                out[i, 2 * j + 2] = 0
    for i in range(h - 1):
        for j in range(w):
            if _crack(codes[i, j], codes[i + 1, j]) == kind:
                out[i, 2 * j + 1] = 1
                out[i + 1, 2 * j + 1] = 1
    for i in range(1, h):
        for c in range(2 * w + 1):
            out[i, c] = min(out[i, c], out[i - 1, c] + 2)
    for i in range(h - 2, -1, -1):
        for c in range(2 * w + 1):
            out[i, c] = min(out[i, c], out[i + 1, c] + 2)
    return out


@numba.njit(cache=True, nogil=True)
def _nearest(wanted: npt.NDArray[np.bool_], columns: npt.NDArray[np.int32], far: int) -> npt.NDArray[np.int64]:
    """Return the squared lattice distance of the wanted pixels; others, and pixels without a crack, get the largest.

    Row by row the lower envelope of the parabolas over the lattice columns: linear time, integers only (Meijster,
    Roerdink and Hesselink 2000).
    """
    h, w = wanted.shape
    n = 2 * w + 1
    out = np.full((h, w), _FAR, np.int64)
    site, begin = np.empty(n, np.int64), np.empty(n, np.int64)
    for i in range(h):
        last = -1
        for c in range(n):
            if columns[i, c] >= far:
                continue
            height = np.int64(columns[i, c]) ** 2
            while last >= 0 and _raised(columns, i, site[last], begin[last]) > height + (c - begin[last]) ** 2:
                last -= 1
            start = np.int64(0)
            if last >= 0:
                before = site[last]
                rise = c * c - before * before + height - np.int64(columns[i, before]) ** 2
                start = 1 + rise // (2 * (c - before))
            if start < n:
                last += 1
                site[last], begin[last] = c, start
        if last < 0:
            continue
        for j in range(w - 1, -1, -1):
            c = 2 * j + 1
            while begin[last] > c:
                last -= 1
            if wanted[i, j]:
                out[i, j] = _raised(columns, i, site[last], c)
    return out


@numba.njit(cache=True, nogil=True)
def _raised(columns: npt.NDArray[np.int32], i: int, site: int, c: int) -> int:
    """Return the squared distance from lattice column c in row i to the nearest crack of the column `site`."""
    height = int(columns[i, site])
    return height * height + (c - site) * (c - site)


def _squared_distances(
    codes: npt.NDArray[np.int32], wanted: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the squared distances of the wanted pixels to the cracks B and U, in lattice units."""
    far = 1 << 29
    return tuple(  # type: ignore[return-value]
        _nearest(wanted, columns, far) if columns.min(initial=far) < far else np.full(codes.shape, _FAR, np.int64)
        for columns in (_column_distances(codes, 1, far), _column_distances(codes, 2, far))
    )


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
