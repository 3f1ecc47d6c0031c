"""Points that lie as given points do: how many, where it is crowded, and how near two may come.

The model of one annotated image is a density (a Gaussian around each of its points, with the borders corrected), its
number of points, and the distances to the nearest neighbour. New points are drawn one by one from the density of an
image chosen at random, mirrored or not; a point nearer to another than the distance it drew from that image's own
distances is drawn again. So tissue that is crowded here and empty there gives layouts that are, too.

Source: "drawn at random" in "Points to synthetic microscopy" is a fixed set of real points; fitting a density is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from scipy.spatial import KDTree

from sketchscale.errors import InputError
from sketchscale.synthesis.layouts import pixels_of_points

__all__ = ["PointModel", "PointScene", "draw_points", "fit_points"]

_LEAST = 10
_TRIES = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class PointScene:
    """One annotated image: density on a coarse grid (cells of `cell` px, sum 1), points per px2, nearest distances."""

    density: npt.NDArray[np.float64]
    cell: int
    per_pixel: float
    nearest: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointModel:
    """Where points lie, in each of some images."""

    scenes: tuple[PointScene, ...]

    @property
    def densest(self) -> float:
        """Points per px2 in the most crowded cell of all."""
        return max(s.per_pixel * s.density.size * float(s.density.max()) for s in self.scenes)

    def arrays(self) -> dict[str, npt.NDArray[np.float64]]:
        """All there is to it, by name."""
        found: dict[str, npt.NDArray[np.float64]] = {}
        for i, scene in enumerate(self.scenes):
            found[f"{i:05d}.density"], found[f"{i:05d}.nearest"] = scene.density, scene.nearest
            found[f"{i:05d}.numbers"] = np.array([scene.cell, scene.per_pixel])
        return found

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[np.float64]]) -> PointModel:
        """What `arrays` returned, back.

        Raises:
            KeyError, ValueError: it is something else.
        """
        scenes = []
        for key in sorted({name.partition(".")[0] for name in arrays}):
            cell, per_pixel = arrays[f"{key}.numbers"]
            density, nearest = arrays[f"{key}.density"], arrays[f"{key}.nearest"]
            scenes.append(PointScene(density=density, cell=int(cell), per_pixel=float(per_pixel), nearest=nearest))
        return cls(scenes=tuple(scenes))


def fit_points(
    points: Sequence[npt.NDArray[np.float64]], shapes: Sequence[tuple[int, int]], *, bandwidth: float | None = None
) -> PointModel:
    """The density model of annotated images.

    Args:
        points: per image (n, 2) of (y, x), pixels.
        shapes: (y, x) of each image.
        bandwidth: of the Gaussians, px; twice the median distance to the nearest neighbour when None.

    Raises:
        InputError: fewer than 10 points in all, or a point outside, twice there, or no number.

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


def _scene(
    points: npt.NDArray[np.float64], shape: tuple[int, int], nearest: npt.NDArray[np.float64], width: float
) -> PointScene:
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


def draw_points(
    model: PointModel, shape: tuple[int, int], *, seed: int = 0, count: int | None = None
) -> npt.NDArray[np.float64]:
    """Points for a new image.

    Args:
        shape: (y, x) of the new image; where it is larger than the annotated ones, their density is repeated, mirrored.
        count: how many to draw; of the density, with the spread of a Poisson distribution, when None.

    Returns:
        (n, 2) float64 of (y, x): whole numbers, no two alike; fewer than `count` where no place is left for more, none
        where the image shows a place of the annotated one that has no point anywhere near.
    """
    rng = np.random.default_rng(seed)
    scene = model.scenes[int(rng.integers(len(model.scenes)))]
    density = _fitted(scene, shape, rng)
    if not density.any():
        return np.empty((0, 2))
    wanted = int(rng.poisson(_expected(scene, density, shape))) if count is None else count
    cells = rng.choice(density.size, (_TRIES, wanted), p=density.ravel() / density.sum())
    places = np.stack(np.divmod(cells, density.shape[1]), -1) * scene.cell + rng.integers(
        0, scene.cell, (*cells.shape, 2)
    )
    apart = rng.choice(scene.nearest, wanted) if scene.nearest.size else np.ones(wanted)
    return _spaced(places, np.maximum(apart, 1.0), shape)


def _expected(scene: PointScene, density: npt.NDArray[np.float64], shape: tuple[int, int]) -> float:
    """Points in the image: the annotated one's, by the share of its density that is shown."""
    shown = shape[0] * shape[1] / (density.size * scene.cell**2)  # cells reach beyond the image
    points = scene.per_pixel * scene.density.size * scene.cell**2
    return float(points * density.sum() * shown)


def _fitted(scene: PointScene, shape: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """The density, mirrored at random, begun anywhere, and repeated until it covers the shape."""
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


def _spaced(
    places: npt.NDArray[np.int64], apart: npt.NDArray[np.float64], shape: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """One place for each column: the first of its rows in the image that is as far from the earlier ones as asked."""
    side = max(1, int(np.ceil(apart.max(initial=1.0))))
    buckets: dict[tuple[int, int], list[tuple[int, int]]] = {}
    kept = []
    for column in range(places.shape[1]):
        for y, x in places[:, column]:
            if y < shape[0] and x < shape[1] and _is_free(int(y), int(x), apart[column], side, buckets):
                buckets.setdefault((int(y) // side, int(x) // side), []).append((int(y), int(x)))
                kept.append((y, x))
                break
    return np.array(kept, np.float64).reshape(-1, 2)


def _is_free(y: int, x: int, apart: float, side: int, buckets: dict[tuple[int, int], list[tuple[int, int]]]) -> bool:
    near = (buckets.get((y // side + j, x // side + i), ()) for j in (-1, 0, 1) for i in (-1, 0, 1))
    return all((y - v) ** 2 + (x - u) ** 2 >= apart**2 for bucket in near for v, u in bucket)
