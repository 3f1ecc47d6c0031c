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
        boundary: (y, x), drawn boundary pixels.

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
        boundary: (y, x), drawn boundary pixels.
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
    centres = _without_bumps(radii, maxima)
    reach = _reaches(radii, centres, _COS, _SIN)
    reach[reach > _room(boundary.shape, beyond, centres)] = np.inf
    for one in np.unique(reach[reach < np.inf]).tolist():
        sites = np.zeros(radii.shape, np.bool_)
        sites[tuple(centres[reach == one].T)] = True
        squared = _squared(sites, 2)
        np.minimum(nearest, (np.sqrt(squared.astype(np.float64)) + one) / 2, out=nearest)
    return nearest.astype(np.float32), _on_line(boundary, maxima)


def _on_line(boundary: npt.NDArray[np.bool_], points: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return the drawn pixels that touch points (n, 2) of the lattice."""
    line = np.zeros_like(boundary)
    for a in (0, 1):
        for b in (0, 1):
            line[tuple(((points - np.array([a, b])) // 2).T)] = True  # no point of a stroke is on the border
    return line & boundary


def _lattice(pixels: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the points of the lattice of half pixels that lie inside a set of pixels, without those on its sides."""
    inside = np.zeros([2 * n + 1 for n in pixels.shape], np.bool_)
    inside[1::2, 1::2] = pixels
    for lines in (inside, inside.T):
        lines[2:-1:2] = lines[1:-2:2] & lines[3::2]
    return inside


def _radii(boundary: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the squared radius, in half pixels, of the largest disc in the strokes about each point of the lattice.

    It stays in the array, too.
    """
    radii: npt.NDArray[np.int64] = _squared(~_lattice(boundary), 1)
    return radii


@numba.njit(cache=True, nogil=True)
def _maxima(radii: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the points (n, 2) with a radius not below that of any of the eight around them, in raster order."""
    h, w = radii.shape
    found = np.empty((h * w, 2), np.int64)
    count = 0
    for y in range(1, h - 1):
        for x in range(1, w - 1):
            if radii[y, x] > 0 and radii[y, x] >= radii[y - 1 : y + 2, x - 1 : x + 2].max():
                found[count, 0], found[count, 1] = y, x
                count += 1
    return found[:count].copy()


@numba.njit(cache=True, nogil=True)
def _without_bumps(radii: npt.NDArray[np.int64], maxima: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the maxima without those of discs near a much larger one."""
    count = len(maxima)
    rounded = np.empty(count, np.float64)
    for n in range(count):
        exact = np.sqrt(radii[maxima[n, 0], maxima[n, 1]])
        rounded[n] = np.ceil(exact) if exact > _FINE else exact
    kept, least = np.ones(count, np.bool_), rounded.min() if count else 0.0
    for n in np.argsort(-rounded, kind="mergesort"):
        below = rounded[n] - max(0.9, 0.2 * rounded[n])
        if below <= least:
            break
        if not kept[n]:
            continue
        for m in range(count):
            if rounded[m] < below:
                dy, dx = maxima[m, 0] - maxima[n, 0], maxima[m, 1] - maxima[n, 1]
                kept[m] &= dy * dy + dx * dx > (2 * rounded[n] + 2) ** 2
    return maxima[kept]


@numba.njit(cache=True, nogil=True)
def _reaches(
    radii: npt.NDArray[np.int64],
    centres: npt.NDArray[np.int64],
    cos: npt.NDArray[np.float64],
    sin: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Return the reach of each centre, half pixels; infinite where a disc is no plug."""
    h, w = radii.shape
    reach = np.full(len(centres), np.inf)
    for m in range(len(centres)):
        y, x = centres[m]
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
            reach[m] = within if far < _FINE else np.ceil(2 * within) / 2
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


def _room(
    shape: tuple[int, ...], beyond: npt.NDArray[np.bool_] | None, points: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return the distance, half pixels, of lattice points to the outermost pixels or to those beyond the image."""
    room: npt.NDArray[np.float64] = np.minimum(points, 2 * np.array(shape) - points).min(axis=1, initial=1 << 30) - 2.0
    if beyond is not None and beyond.any():
        room = np.minimum(room, np.sqrt(_squared(~_lattice(~beyond), 1)[tuple(points.T)]))
    return room


@numba.njit(cache=True, nogil=True)
def _squared(sites: npt.NDArray[np.bool_], step: int) -> npt.NDArray[np.int64]:
    """Return the squared distance of lattice points to the nearest site: of all (step 1) or of pixel centres (2).

    Along columns first, then along each row the lower envelope of parabolas, in integers.
    """
    h, w = sites.shape
    begin = step - 1
    far = 1 << 29
    columns = np.full((h, w), far, np.int32)
    for i in range(h):
        for j in range(w):
            columns[i, j] = 0 if sites[i, j] else (columns[i - 1, j] + 1 if i > 0 else far)
    for i in range(h - 2, -1, -1):
        for j in range(w):
            columns[i, j] = min(columns[i, j], columns[i + 1, j] + 1)
    out = np.full(((h - begin + step - 1) // step, (w - begin + step - 1) // step), _FAR, np.int64)
    site, start = np.empty(w, np.int64), np.empty(w, np.int64)
    for i in range(begin, h, step):
        last = -1
        for c in range(w):
            if columns[i, c] >= far:
                continue
            height = np.int64(columns[i, c]) ** 2
            while last >= 0 and _raised(columns, i, site[last], start[last]) > height + (c - start[last]) ** 2:
                last -= 1
            first = np.int64(0)
            if last >= 0:
                p = site[last]
                first = 1 + (c * c - p * p + height - np.int64(columns[i, p]) ** 2) // (2 * (c - p))
            if first < w:
                last += 1
                site[last], start[last] = c, first
        if last < 0:
            continue
        for c in range(w - 1 - begin, -1, -step):
            while start[last] > c:
                last -= 1
            out[i // step, c // step] = _raised(columns, i, site[last], c)
    return out


@numba.njit(cache=True, nogil=True)
def _raised(columns: npt.NDArray[np.int32], i: int, site: int, c: int) -> int:
    """Return the squared distance from column c in row i to the nearest site of the column `site`."""
    height = int(columns[i, site])
    return height * height + (c - site) * (c - site)
