"""Distances to cracks by looking at every crack for every pixel, and truths to hide parts of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

BEYOND, DRAWN, UNKNOWN = -3, -2, -1

Site = tuple[int, ...]


def cracks(codes: npt.NDArray[np.int32]) -> tuple[list[Site], list[Site], list[Site]]:
    """Lattice positions of the certain and of the possible boundaries, and of those at the sides of strokes.

    Any number of axes.
    """
    certain, possible, sides = [], [], []
    for at in np.ndindex(codes.shape):
        for way in np.eye(codes.ndim, dtype=int):
            next_to = tuple((at + way).tolist())
            if any(n >= m for n, m in zip(next_to, codes.shape, strict=True)):
                continue
            a, b = int(codes[at]), int(codes[next_to])
            site = tuple((2 * np.array(at) + 1 + way).tolist())
            if BEYOND in (a, b):
                continue
            if DRAWN in (a, b):
                sides += [site] if a != b else []
            elif UNKNOWN in (a, b):
                possible.append(site)
            elif a != b:
                certain.append(site)
    return certain, possible, sides


def squared_distances(codes: npt.NDArray[np.int32], sites: list[Site], spacing: float = 1.0) -> npt.NDArray[np.float64]:
    """Squared lattice distance from each pixel to the nearest site; infinite without sites; `spacing` of axis 0."""
    if not sites:
        return np.full(codes.shape, np.inf)
    pixels = 2 * np.stack(np.indices(codes.shape), axis=-1)[..., None, :] + 1
    apart = (pixels - np.array(sites)) * np.array([spacing] + [1.0] * (codes.ndim - 1))
    return np.asarray((apart**2).sum(axis=-1).min(axis=-1, initial=10**9), np.float64)


def true_distance(codes: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """px, of every pixel of a fully known label map, to its nearest crack."""
    certain, possible, sides = cracks(codes)
    assert not possible
    assert not sides
    return np.sqrt(squared_distances(codes, certain)) / 2


def signed_distance(codes: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """px, of every pixel of a fully known label map: in background to the nearest crack of an object, negative."""
    distance = true_distance(codes)
    return np.where(codes > 0, distance, -distance)


def boundary_pixels(codes: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Of a fully known label map: in an object with another code at one of the four sides."""
    out = np.zeros(codes.shape, bool)
    h, w = codes.shape
    for i, j in zip(*np.nonzero(codes > 0), strict=True):
        for y, x in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
            if 0 <= y < h and 0 <= x < w and codes[y, x] not in (BEYOND, codes[i, j]):
                out[i, j] = True
    return np.asarray(out)


def flow_at(codes: npt.NDArray[np.int32], distance: npt.NDArray[np.float64], i: int, j: int) -> npt.NDArray[np.float64]:
    """Unit flow of one pixel of a fully known label map, straight from the definition."""
    h, w = codes.shape
    near = {
        (y, x)
        for y in range(max(0, i - 2), min(h, i + 3))
        for x in range(max(0, j - 2), min(w, j + 3))
        if codes[y, x] == codes[i, j]
    }
    own, front = set(), {(i, j)}
    while front:
        own |= front
        front = {(y + a, x + b) for y, x in front for a, b in ((0, 1), (1, 0), (0, -1), (-1, 0))} & near - own

    def height(y: int, x: int) -> float | None:
        if not (0 <= y < h and 0 <= x < w) or codes[y, x] == BEYOND:
            return None
        return float(distance[y, x]) if (y, x) in own else -0.5

    total = np.zeros(2)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            here, other = height(i + dy, j + dx), height(i - dy, j - dx)
            if here is None:
                here = None if other is None else 2 * float(distance[i, j]) - other
            if here is not None:
                total += np.exp(-(dy * dy + dx * dx) / 2) * np.array([dy, dx]) * here
    norm = float(np.hypot(*total))
    return total / norm if norm > 1e-5 else np.zeros(2)


def random_truth(rng: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """Touching cells of a random Voronoi diagram on a random background."""
    n = int(rng.integers(1, 9))
    seeds = rng.uniform(0, 1, (n, len(shape))) * shape
    grid = np.stack(np.meshgrid(*[np.arange(s) for s in shape], indexing="ij"), axis=-1)
    codes = (((grid[..., None, :] - seeds) ** 2).sum(-1).argmin(-1) + 1).astype(np.int32)
    field = ndimage.gaussian_filter(rng.standard_normal(shape), float(rng.uniform(0.5, 3)))
    codes[field < np.quantile(field, rng.uniform(0, 0.6))] = 0
    return codes


def random_sketch(rng: np.random.Generator, truth: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """A plane with a random part hidden, and half of the time with brushes of one width drawn along its cracks."""
    sketch = partly_hidden(rng, truth)
    if rng.random() < 0.5:
        sketch[brushed(rng, truth)] = DRAWN
    return sketch


def partly_hidden(rng: np.random.Generator, truth: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The truth with a random part hidden."""
    field = ndimage.gaussian_filter(rng.standard_normal(truth.shape), float(rng.uniform(0, 4)))
    hidden = field < np.quantile(field, rng.choice([0.0, 0.1, 0.5, 0.8, 1.0]))
    return np.where(hidden, UNKNOWN, truth).astype(np.int32)


def lined(rng: np.random.Generator, truth: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The truth, half of the time with objects split by drawn lines, which are boundaries of a volume as they are."""
    line = ndimage.gaussian_filter(rng.standard_normal(truth.shape), 3)
    split = (np.abs(line) < np.quantile(np.abs(line), 0.08)) & (rng.random() < 0.5)
    return np.where(split, DRAWN, truth).astype(np.int32)


def brushed(rng: np.random.Generator, truth: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Pixels within a radius of a smooth random choice of the cracks: strokes that have the interface inside."""
    radius, at = rng.choice([0.5, 1.0, 1.5, 2.0, 3.0]), np.array(cracks(truth)[0]).reshape(-1, 2)
    field = ndimage.gaussian_filter(rng.standard_normal([2 * n + 1 for n in truth.shape]), 6)
    at = at[field[at[:, 0], at[:, 1]] > np.quantile(field, rng.choice([0.0, 0.3, 0.6]))]
    pixels = 2 * np.stack(np.indices(truth.shape), axis=-1)[:, :, None] + 1
    away = np.abs(pixels - at).max(axis=-1) if radius == 0.5 else np.sqrt(((pixels - at) ** 2).sum(axis=-1))
    return np.asarray(away.min(axis=-1, initial=10**9) <= 2 * radius)


def reach(drawn: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """How near an interface is for certain by strokes alone, px, disc by disc; see annotations.strokes."""
    shape = [2 * n + 1 for n in drawn.shape]
    inside = {p for p in np.ndindex(*shape) if _covered(drawn, p)}
    sides = np.array([p for p in np.ndindex(*shape) if p not in inside])
    radius = {p: float(np.sqrt(((sides - p) ** 2).sum(axis=1).min())) for p in inside}
    maxima = [p for p, r in radius.items() if r >= max(radius.get(q, 0.0) for q in _around(p))]
    rounded = {p: float(np.ceil(radius[p])) if radius[p] > 4 else radius[p] for p in maxima}
    for p in sorted(maxima, key=lambda p: -rounded[p]):
        for q in list(rounded):
            much = rounded[q] < rounded.get(p, 0.0) - max(0.9, 0.2 * rounded.get(p, 0.0))
            if p in rounded and much and np.hypot(p[0] - q[0], p[1] - q[1]) <= 2 * rounded[p] + 2:
                del rounded[q]
    out = np.full(drawn.shape, np.inf)
    for y, x in rounded:
        far = max(_far_side((y, x), radius, sides) + 0.5, 2.0)
        within = np.hypot(far, 1) if far < 4 else np.ceil(2 * np.hypot(far, 1)) / 2
        room = min(y, x, shape[0] - 1 - y, shape[1] - 1 - x) - 2
        if _goes_on((y, x), radius) and room >= within:
            rows, columns = np.indices(drawn.shape)
            out = np.minimum(out, (np.hypot(2 * rows + 1 - y, 2 * columns + 1 - x) + within) / 2)
    return out


def _far_side(point: Site, radius: dict[tuple[int, ...], float], sides: npt.NDArray[np.int64]) -> float:
    """The distance of the nearest side at 120 degrees or more from a nearest one; infinite if 2 half pixels further."""
    steps = sides - point
    lengths = np.sqrt((steps**2).sum(axis=1))
    most = np.ceil(radius[point]) + 2
    found = [np.inf]
    for nearest in steps[np.abs(lengths - radius[point]) < 1e-9]:
        turned = steps @ nearest
        across = (turned < 0) & (4 * turned**2 >= (nearest**2).sum() * (steps**2).sum(axis=1) - 1e-9)
        found += lengths[across & (np.abs(steps).max(axis=1) <= most)].tolist()
    return min(found)


def _covered(drawn: npt.NDArray[np.bool_], point: tuple[int, ...]) -> bool:
    """Whether all pixels are drawn that touch a lattice point; beyond the array none is."""
    return all(
        0 <= i < drawn.shape[0] and 0 <= j < drawn.shape[1] and drawn[i, j]
        for i in {(point[0] - 1) // 2, point[0] // 2}
        for j in {(point[1] - 1) // 2, point[1] // 2}
    )


def _around(point: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(point[0] + a, point[1] + b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]


def _goes_on(point: tuple[int, ...], radius: dict[tuple[int, ...], float]) -> bool:
    """Whether a circle around a disc is in the stroke in at least two arcs."""
    turns = np.arange(32) * (2 * np.pi / 32)
    away = radius[point] + 3
    places = [
        (int(np.floor(point[0] + away * np.sin(t) + 0.5)), int(np.floor(point[1] + away * np.cos(t) + 0.5)))
        for t in turns
    ]
    inside = [place in radius for place in places]
    return sum(a != b for a, b in zip(inside, inside[1:] + inside[:1], strict=True)) >= 4
