"""What a boundary stroke of any width says: somewhere in it runs an interface between two regions.

A stroke is a region. The interface runs along it, from one end to the other and between its two sides, but no one knows
where: a line of one pixel has it on either side, a brush of radius 5 px anywhere within 5 px of its middle.

    object  ┃░░░░░│░░░░░┃  what is beyond       ┃ sides of the stroke    │ its centre line
       x ───╂─────┼─────┨                       lower = distance to the near side: no interface is nearer
            lower       upper                   upper = distance to the centre line + half the width

*Upper bound.* Take the largest disc about a point of the centre line that fits into the stroke. It touches both sides,
so it closes the stroke like a plug, and the interface must pass through it. Hence an interface lies within

    reach(c) = sqrt(max(m + 1/4, 1)^2 + 1/4)  px      of the point c whose distance to the far side is m

where 1/2 is for the middle of a crack, to which distances are measured, 1/4 for a centre between points of the lattice
of half pixels, and 1 px for the hand: a line of one pixel has a reach of 1.12 px, any crack that touches the line. Not
every local maximum of the distance to the sides is a plug: a bump at a side, the neck where two strokes touch, and a
pixel left out in the brush have small discs of their own. So the stroke must go on at two sides of the disc, and a disc
near a much larger one is left out.

It holds whatever is beyond the stroke: background around an object with a closed outline, another object, or pixels
without annotation; nor does it need the stroke to be closed. Where background, or another object, is painted beyond it,
the crack at which that begins is an upper bound as well, and a nearer one where the hand was steady.

*Only the centre line stands for a stroke* where one pixel has to: in `centre_line`. All pixels of a line of one or two
pixels belong to it. It is a place in the stroke, never a claim that the interface runs there.

Discs that reach the border of the array, or pixels beyond the image, say nothing: the rest of the stroke may be hidden
there. So strokes may be cropped.

Source: the centre line is that of Blum's medial axis (1967), as the local maxima of the distance transform; its use as
a bound is ours. Distance transform: Meijster, Roerdink and Hesselink 2000.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sketchscale.geometry import tile_cover

__all__ = ["LINE_MARGIN", "centre_line", "stroke_reach"]

_FAR = np.int64(1) << 40
_TILE, LINE_MARGIN = 1024, 128
"""px: large arrays are done in tiles, as the lattice has four points for each pixel; the margin for wide strokes."""
_HAND = 2.0
"""Half pixels: no stroke is taken to be thinner than twice this, as no hand is steadier."""
_BETWEEN = 0.5
"""Half pixels: the middle of a stroke may lie between points of the lattice."""
_ACROSS = 2
"""Half pixels by which the far side may be further away than the near one."""
_AROUND = 3.0
"""Half pixels outside a disc at which a stroke must go on at two sides."""
_TURN = np.arange(32) * (2 * np.pi / 32)
_COS, _SIN = np.cos(_TURN), np.sin(_TURN)
_FINE = 4.0
"""Radii in units of the lattice (half pixels) above which they are rounded up to whole ones: fewer transforms."""


def centre_line(boundary: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the drawn pixels at the centre line of strokes, the same array for lines of one or two pixels.

    Args:
        boundary: drawn boundary pixels, any number of axes.

    >>> centre_line(np.array([[False, True, True, True, False, True, False]] * 5))[2].tolist()
    [False, False, True, False, False, True, False]
    """
    line = np.zeros_like(boundary)
    for tile in tile_cover(boundary.shape, (_TILE,) * boundary.ndim):
        around = tile.write.grow(LINE_MARGIN).clip(boundary.shape)
        part = boundary[around.slices]
        if part.any():
            found = _on_line(part, _maxima(_radii(part)))
            line[tile.write.slices] = found[tile.write.relative_to(around.start).slices]
    return line


def stroke_reach(
    boundary: npt.NDArray[np.bool_], beyond: npt.NDArray[np.bool_] | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return how near an interface is for certain, by strokes alone, and their centre line.

    Args:
        boundary: drawn boundary pixels, any number of axes.
        beyond: shape of boundary, pixels outside the image; None for none.

    Returns:
        Both of the shape of `boundary`: float32, px from the centre of each pixel to a crack, infinite where no stroke
        says anything; and bool, see `centre_line`.

    >>> line = np.zeros((7, 9), bool)
    >>> line[:, 6] = True
    >>> reach, _ = stroke_reach(line)
    >>> [round(float(px), 2) for px in reach[3]]
    [7.12, 6.12, 5.12, 4.12, 3.12, 2.12, 1.12, 2.12, 3.12]
    """
    nearest = np.full(boundary.shape, np.inf)
    if not boundary.any():
        return nearest.astype(np.float32), np.zeros_like(boundary)
    radii = _radii(boundary)
    maxima = _maxima(radii)
    reach = _reaches(radii, _without_bumps(radii, maxima), _COS, _SIN)
    reach[reach > _room(boundary.shape, beyond)] = np.inf
    for one in np.unique(reach[reach < np.inf]).tolist():
        squared = _squared(reach == one, odd=True)
        np.minimum(nearest, (np.sqrt(squared.astype(np.float64)) + one) / 2, out=nearest)
    return nearest.astype(np.float32), _on_line(boundary, maxima)


def _on_line(boundary: npt.NDArray[np.bool_], centres: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the drawn pixels that touch a centre of the lattice."""
    return boundary & _pixels(ndimage.maximum_filter(centres, 3))


def _lattice(pixels: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the points of the lattice of half pixels that lie inside a set of pixels, without those on its sides."""
    inside = np.zeros([2 * n + 1 for n in pixels.shape], np.bool_)
    inside[(np.s_[1::2],) * pixels.ndim] = pixels
    for axis in range(pixels.ndim):
        lines = np.moveaxis(inside, axis, 0)
        lines[2:-1:2] = lines[1:-2:2] & lines[3::2]
    return inside


def _pixels(lattice: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    return lattice[(np.s_[1::2],) * lattice.ndim]


def _radii(boundary: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the squared radius, in half pixels, of the largest disc in the strokes about each point of the lattice.

    It stays in the array, too.
    """
    return _squared(~_lattice(boundary), odd=False)


def _maxima(radii: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    highest: npt.NDArray[np.int64] = ndimage.maximum_filter(radii, 3, mode="nearest")
    maxima: npt.NDArray[np.bool_] = (radii > 0) & (radii == highest)
    return maxima


@numba.njit(cache=True, nogil=True)
def _reaches(
    radii: npt.NDArray[np.int64],
    centres: npt.NDArray[np.bool_],
    cos: npt.NDArray[np.float64],
    sin: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Return the reach of each centre, half pixels: infinite elsewhere, and where a disc is no plug."""
    h, w = radii.shape
    reach = np.full((h, w), np.inf)
    for y in range(h):
        for x in range(w):
            if not centres[y, x]:
                continue
            away = np.sqrt(radii[y, x]) + _AROUND
            changes, before = 0, False
            for n in range(cos.size + 1):
                i = int(np.floor(y + away * sin[n % cos.size] + 0.5))
                j = int(np.floor(x + away * cos[n % cos.size] + 0.5))
                inside = 0 <= i < h and 0 <= j < w and radii[i, j] > 0
                changes += n > 0 and inside != before
                before = inside
            if changes >= 4:
                far = max(np.sqrt(_far_side(radii, y, x)) + _BETWEEN, _HAND)
                within = np.sqrt(far * far + 1)
                reach[y, x] = within if far < _FINE else np.ceil(2 * within) / 2
    return reach


@numba.njit(cache=True, nogil=True)
def _far_side(radii: npt.NDArray[np.int64], y: int, x: int) -> float:
    """Return the squared distance from a centre to the nearest side across from the nearest one; infinite for none."""
    most = int(np.ceil(np.sqrt(radii[y, x]))) + _ACROSS
    best = np.inf
    for a in range(-most, most + 1):
        for b in range(-most, most + 1):
            if a * a + b * b != radii[y, x] or not _is_side(radii, y + a, x + b):
                continue
            for i in range(-most, most + 1):
                for j in range(-most, most + 1):
                    squared = i * i + j * j
                    # At an angle of at least 120 degrees from the nearest one.
                    across = a * i + b * j < 0 and 4 * (a * i + b * j) ** 2 >= radii[y, x] * squared
                    if squared < best and across and _is_side(radii, y + i, x + j):
                        best = squared
    return best


@numba.njit(cache=True, nogil=True)
def _is_side(radii: npt.NDArray[np.int64], y: int, x: int) -> bool:
    return not (0 <= y < radii.shape[0] and 0 <= x < radii.shape[1]) or radii[y, x] == 0


def _room(shape: tuple[int, ...], beyond: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.float64]:
    """Return for each lattice point the distance, half pixels, to the outermost pixels or to those beyond the image."""
    room = np.full([2 * n + 1 for n in shape], np.inf)
    for axis, n in enumerate(shape):
        along = np.arange(2 * n + 1)
        free = np.minimum(along, 2 * n - along) - 2.0
        room = np.minimum(room, free.reshape([-1 if a == axis else 1 for a in range(len(shape))]))
    if beyond is not None and beyond.any():
        room = np.minimum(room, np.sqrt(_squared(~_lattice(~beyond), odd=False).astype(np.float64)))
    return room


def _without_bumps(radii: npt.NDArray[np.int64], maxima: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the maxima without those of discs near a much larger one."""
    exact = np.sqrt(np.where(maxima, radii, 0).astype(np.float64))
    rounded = np.where(exact > _FINE, np.ceil(exact), exact)
    kept, levels = maxima.copy(), np.unique(rounded[maxima])[::-1].tolist()
    for radius in levels:
        sites, least = kept & (rounded == radius), radius - max(0.9, 0.2 * radius)
        if levels[-1] < least and sites.any():
            kept &= ~((_squared(sites, odd=False) <= (2 * radius + 2) ** 2) & (rounded < least))
    return kept


def _squared(sites: npt.NDArray[np.bool_], *, odd: bool) -> npt.NDArray[np.int64]:
    """Return the squared distance of each lattice point to the nearest site, of pixel centres alone if `odd`."""
    values = np.where(sites, np.int64(0), _FAR)
    for axis in range(sites.ndim):
        lines = np.ascontiguousarray(np.moveaxis(values, axis, -1))
        _lower_envelopes(lines.reshape(-1, lines.shape[-1]))
        values = np.moveaxis(lines[..., 1::2] if odd else lines, -1, axis)
    return values


@numba.njit(cache=True, nogil=True)
def _lower_envelopes(lines: npt.NDArray[np.int64]) -> None:
    """Replace each line of squared distances by the lower envelope of the parabolas over it, in integers."""
    count, n = lines.shape
    site, begin, height = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    for row in range(count):
        line = lines[row]
        last = -1
        for c in range(n):
            if line[c] >= _FAR:
                continue
            while last >= 0 and height[last] + (begin[last] - site[last]) ** 2 > line[c] + (begin[last] - c) ** 2:
                last -= 1
            start = 0
            if last >= 0:
                rise = c * c - site[last] * site[last] + line[c] - height[last]
                start = 1 + rise // (2 * (c - site[last]))
            if start < n:
                last += 1
                site[last], begin[last], height[last] = c, start, line[c]
        for c in range(n - 1, -1, -1):
            while last > 0 and begin[last] > c:
                last -= 1
            if last >= 0:
                line[c] = height[last] + (c - site[last]) ** 2
