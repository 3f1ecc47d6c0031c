"""Draw points that are distributed like given points: by number, density and distance between neighbours.

The model of one annotated image is a density (a Gaussian around each point, corrected at the borders), its number of
points, and the distances to the nearest neighbour. New points are drawn one by one from the density of a random image,
possibly mirrored. Each draws a minimal distance from the distances of that image, and is drawn again if another point
is nearer. Tissue with crowded and empty areas thus gives layouts with such areas.

Source: "drawn at random" in "Points to synthetic microscopy" is a fixed set of real points; fitting a density is ours.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from scipy.spatial import KDTree

from sketchscale.errors import InputError
from sketchscale.synthesis.layouts import pixels_of_points

__all__ = ["PointModel", "PointScene", "draw_points", "fit_points"]

Floats = npt.NDArray[np.float64]

_LEAST = 10
_TRIES = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class PointScene:
    """One annotated image: density on a coarse grid (cells of `cell` px, sum 1), points per px2, nearest distances."""

    density: Floats
    cell: int
    per_pixel: float
    nearest: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class PointModel:
    """Distribution of points in each of the annotated images."""

    scenes: tuple[PointScene, ...]

    @property
    def densest(self) -> float:
        """Points per px2 in the densest cell."""
        return max(s.per_pixel * s.density.size * float(s.density.max()) for s in self.scenes)

    def arrays(self) -> dict[str, Floats]:
        """Return the model as arrays by name."""
        found: dict[str, Floats] = {}
        for i, scene in enumerate(self.scenes):
            found[f"{i:05d}.density"], found[f"{i:05d}.nearest"] = scene.density, scene.nearest
            found[f"{i:05d}.numbers"] = np.array([scene.cell, scene.per_pixel])
        return found

    @classmethod
    def of(cls, arrays: Mapping[str, Floats]) -> PointModel:
        """Restore a model from `arrays`; raise KeyError or ValueError if they are not of a model."""
        scenes = []
        for key in sorted({name.partition(".")[0] for name in arrays}):
            cell, per_pixel = arrays[f"{key}.numbers"]
            density, nearest = arrays[f"{key}.density"], arrays[f"{key}.nearest"]
            scenes.append(PointScene(density=density, cell=int(cell), per_pixel=float(per_pixel), nearest=nearest))
        return cls(scenes=tuple(scenes))


def fit_points(
    points: Sequence[Floats], shapes: Sequence[tuple[int, int]], *, bandwidth: float | None = None
) -> PointModel:
    """Fit the density model of annotated images.

    Args:
        points: per image (n, 2) of (y, x), px.
        shapes: (y, x) of each image.
        bandwidth: of the Gaussians, px; None takes twice the median distance to the nearest neighbour.

    Raises:
        InputError: there are fewer than 10 points in all; see `pixels_of_points`.

    >>> grid = np.stack(np.mgrid[5:100:10, 5:100:10], -1).reshape(-1, 2).astype(float)
    >>> draw_points(fit_points([grid], [(100, 100)]), (50, 80), count=12).shape
    (12, 2)
    """
    total = sum(len(p) for p in points)
    if total < _LEAST:
        raise InputError.of(
            found=f"{total} point{'s' * (total != 1)} in all",
            expected=f"at least {_LEAST}, one for each object",
            fix="annotate more objects",
        )
    for p, shape in zip(points, shapes, strict=True):
        pixels_of_points(p, shape)
    nearest = [KDTree(p).query(p, k=2)[0][:, 1] if len(p) > 1 else np.empty(0) for p in points]
    known = np.concatenate(nearest)
    width = bandwidth or 2 * float(np.median(known)) if known.size else float(min(min(s) for s in shapes))
    return PointModel(
        scenes=tuple(
            _scene(p, shape, near, width) for p, shape, near in zip(points, shapes, nearest, strict=True) if len(p)
        )
    )


def _scene(points: Floats, shape: tuple[int, int], nearest: Floats, width: float) -> PointScene:
    cell = max(1, int(width / 4))
    cells = tuple(-(-n // cell) for n in shape)
    counts = np.zeros(cells)
    at = np.floor(points + 0.5).astype(np.int64) // cell
    np.add.at(counts, (at[:, 0], at[:, 1]), 1)
    blur = {"sigma": width / cell, "mode": "constant"}
    density = gaussian_filter(counts, **blur) / np.maximum(gaussian_filter(np.ones(cells), **blur), 1e-9)
    return PointScene(
        density=density / density.sum(), cell=cell, per_pixel=len(points) / (shape[0] * shape[1]), nearest=nearest
    )


def draw_points(model: PointModel, shape: tuple[int, int], *, seed: int = 0, count: int | None = None) -> Floats:
    """Draw points for a new image.

    Args:
        shape: (y, x) of the new image; if it is larger than the annotated ones, their density is repeated, mirrored.
        count: number of points; None draws it from a Poisson distribution around the expected number.

    Returns:
        (n, 2) float64 of (y, x): integers, all different. Fewer than `count` if there is no room for more; none if the
        density is zero everywhere in the image.
    """
    rng = np.random.default_rng(seed)
    scene = model.scenes[int(rng.integers(len(model.scenes)))]
    density = _fitted(scene, shape, rng)
    if not density.any():
        return np.empty((0, 2))
    if count is None:  # expected: points of the annotated image, by the share of its density in the new one
        shown = shape[0] * shape[1] / (density.size * scene.cell**2)  # cells extend beyond the image
        points = scene.per_pixel * scene.density.size * scene.cell**2
        count = int(rng.poisson(float(points * density.sum() * shown)))
    cells = rng.choice(density.size, (_TRIES, count), p=density.ravel() / density.sum())
    places = np.stack(np.divmod(cells, density.shape[1]), -1) * scene.cell + rng.integers(
        0, scene.cell, (*cells.shape, 2)
    )
    apart = rng.choice(scene.nearest, count) if scene.nearest.size else np.ones(count)
    return _spaced(places, np.maximum(apart, 1.0), shape)


def _fitted(scene: PointScene, shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Return the density, mirrored at random, from a random start, and repeated until it covers the shape."""
    density = scene.density
    for axis in (0, 1):
        density = np.flip(density, axis) if rng.random() < 0.5 else density
    cells = [-(-n // scene.cell) for n in shape]
    grown = np.pad(density, [(0, c) for c in cells], mode="symmetric")
    start = [
        int(rng.integers(0, n)) if c > n else int(rng.integers(0, n - c + 1))
        for n, c in zip(density.shape, cells, strict=True)
    ]
    return grown[start[0] : start[0] + cells[0], start[1] : start[1] + cells[1]]


def _spaced(places: npt.NDArray[np.int64], apart: Floats, shape: tuple[int, int]) -> Floats:
    """Return one place per column: the first of its rows in the image that keeps its distance from earlier places."""
    side = max(1, int(np.ceil(apart.max(initial=1.0))))
    buckets: dict[tuple[int, int], list[tuple[int, int]]] = {}
    around = list(itertools.product((-1, 0, 1), repeat=2))
    kept = []
    for column, least in enumerate(apart):
        for y, x in places[:, column].tolist():
            near = (buckets.get((y // side + j, x // side + i), ()) for j, i in around)
            if not (y < shape[0] and x < shape[1]):
                continue
            if all((y - v) ** 2 + (x - u) ** 2 >= least**2 for bucket in near for v, u in bucket):
                buckets.setdefault((y // side, x // side), []).append((y, x))
                kept.append((y, x))
                break
    return np.array(kept, np.float64).reshape(-1, 2)
