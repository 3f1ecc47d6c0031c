"""Distances to cracks by looking at every crack for every pixel, and truths to hide parts of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

BEYOND, DRAWN, UNKNOWN = -3, -2, -1


def cracks(codes: npt.NDArray[np.int32]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Lattice positions of the certain and of the possible boundaries; any number of axes."""
    certain, possible = [], []
    for at in np.ndindex(codes.shape):
        for way in np.eye(codes.ndim, dtype=int):
            next_to = tuple((at + way).tolist())
            if any(n >= m for n, m in zip(next_to, codes.shape, strict=True)):
                continue
            a, b = int(codes[at]), int(codes[next_to])
            site = tuple((2 * np.array(at) + 1 + way).tolist())
            if BEYOND in (a, b):
                continue
            if UNKNOWN in (a, b) and DRAWN not in (a, b):
                possible.append(site)
            elif a != b:
                certain.append(site)
    return certain, possible


def squared_distances(
    codes: npt.NDArray[np.int32], sites: list[tuple[int, ...]], spacing: float = 1.0
) -> npt.NDArray[np.float64]:
    """Squared lattice distance from each pixel to the nearest site; infinite without sites; `spacing` of axis 0."""
    if not sites:
        return np.full(codes.shape, np.inf)
    pixels = 2 * np.stack(np.indices(codes.shape), axis=-1)[..., None, :] + 1
    apart = (pixels - np.array(sites)) * np.array([spacing] + [1.0] * (codes.ndim - 1))
    return np.asarray((apart**2).sum(axis=-1).min(axis=-1, initial=10**9), np.float64)


def true_distance(codes: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """px, of every pixel of a fully known label map, to its nearest crack."""
    certain, possible = cracks(codes)
    assert not possible
    return np.sqrt(squared_distances(codes, certain)) / 2


def signed_distance(codes: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """px, of every pixel of a fully known label map: in background to the nearest crack of an object, negative."""
    outside = -true_distance(np.where(codes == DRAWN, 0, codes))
    signed = np.where(codes > 0, true_distance(codes), outside)
    signed[codes == DRAWN] = -0.5
    return signed


def boundary_pixels(codes: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Of a fully known label map: drawn, or in an object with another code at one of the four sides."""
    out = codes == DRAWN
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
    """Touching cells of a random Voronoi diagram on a random background, some split by drawn lines."""
    n = int(rng.integers(1, 9))
    seeds = rng.uniform(0, 1, (n, len(shape))) * shape
    grid = np.stack(np.meshgrid(*[np.arange(s) for s in shape], indexing="ij"), axis=-1)
    codes = (((grid[..., None, :] - seeds) ** 2).sum(-1).argmin(-1) + 1).astype(np.int32)
    field = ndimage.gaussian_filter(rng.standard_normal(shape), float(rng.uniform(0.5, 3)))
    codes[field < np.quantile(field, rng.uniform(0, 0.6))] = 0
    if rng.random() < 0.5:
        line = ndimage.gaussian_filter(rng.standard_normal(shape), 3)
        codes[np.abs(line) < np.quantile(np.abs(line), 0.08)] = DRAWN
    return codes


def random_sketch(rng: np.random.Generator, truth: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The truth with a random part hidden."""
    field = ndimage.gaussian_filter(rng.standard_normal(truth.shape), float(rng.uniform(0, 4)))
    hidden = field < np.quantile(field, rng.choice([0.0, 0.1, 0.5, 0.8, 1.0]))
    return np.where(hidden, UNKNOWN, truth).astype(np.int32)
