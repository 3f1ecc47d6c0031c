"""Sums of whole objects, and the arithmetic that turns them into columns.

This is the third function of a feature (see `features`): divisions and roots are computed here, once, from whole-image
integers and from crops that no block has cut.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import SphericalVoronoi

from sketchscale.objects.measurement.neighbours import Neighbours
from sketchscale.objects.measurement.partials import AXES, Coding, Partial, lines_of

__all__ = [
    "CHANNEL_VALUES",
    "OBJECT_VALUES",
    "Crops",
    "Totals",
    "axis_length",
    "crosses_tile_seam",
    "crossing_areas",
    "diameter",
    "eccentricity",
    "extent",
    "mean",
    "orientation",
    "perimeter",
    "perimeter_um",
    "std",
    "surface",
    "total",
]

Column = npt.NDArray[Any]

OBJECT_VALUES = ("hull_area", "feret", "feret_um", "touching")
"""Rows of `Crops.values`."""

CHANNEL_VALUES = (
    *("p05", "p25", "p50", "p75", "p95", "gradient_mean", "gradient_std"),
    *("texture_contrast", "texture_correlation", "texture_homogeneity", "texture_energy", "ring_mean", "ring_std"),
)
"""Rows of `Crops.channels`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crops:
    """Values measured on the crops of n objects.

    Attributes:
        label: (n,) ids.
        values: (4, n) rows as OBJECT_VALUES.
        channels: (c, 13, n) rows as CHANNEL_VALUES. NaN means no value: part not chosen, no background in the ring, no
            two pixels to compare, a box larger than CROP_LIMIT.
    """

    label: npt.NDArray[np.uint64]
    values: npt.NDArray[np.float64]
    channels: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The input of finalizers: combined sums of n whole objects, values of crops, neighbours.

    Attributes:
        shape, tile_stride, coding: see `MeasureConfig`.
        spacing: um per pixel along each axis; 1 if unknown.
    """

    partial: Partial
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    tile_stride: tuple[int, ...] | None
    coding: Coding
    crops: Crops | None = None
    near: Neighbours | None = None

    def sum(self, name: str) -> npt.NDArray[np.int64]:
        """(n,) a row of the sums by its name."""
        return self.partial.sum(name)

    def crop(self, name: str) -> Column:
        """(n,) of OBJECT_VALUES, or (c, n) of CHANNEL_VALUES."""
        assert self.crops is not None, "features of crops are left out without crops"
        of_object = name in OBJECT_VALUES
        rows = self.crops.values if of_object else self.crops.channels.swapaxes(0, 1)
        values: Column = rows[(OBJECT_VALUES if of_object else CHANNEL_VALUES).index(name)]
        return values

    def neighbour(self, name: str) -> Column:
        """(n,) one attribute of `Neighbours`."""
        values: Column = getattr(self.near, name)
        return values

    @property
    def axes(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> npt.NDArray[np.int64]:
        """(n,) pixels."""
        return self.partial.sum("size")

    @property
    def pixel(self) -> float:
        """Size of a pixel in um2 or um3."""
        return math.prod(self.spacing)

    def center(self, axis: str) -> Column:
        """(n,) centroid along an axis, pixel index."""
        position: Column = self.sum(axis) / self.size
        return position

    def center_um(self, axis: str) -> Column:
        """(n,) centroid along an axis, um."""
        position: Column = self.center(axis) * self.spacing[AXES.index(axis) - len(AXES)]
        return position

    def covariance(self, a: str, b: str, spacing: Sequence[float] | None = None) -> Column:
        """(n,) covariance of the pixel centres of each object along two axes, in squared units of the spacing or px."""
        n, sum_a, sum_b = self.size, self.sum(a), self.sum(b)
        mean_a, mean_b = sum_a // n, sum_b // n
        # About a whole pixel near the centroid the sums are small, and exact modulo 2^64 although the terms wrap.
        about = self.sum(a + b) - mean_a * sum_b - mean_b * sum_a + n * mean_a * mean_b
        rest_a, rest_b = (sum_a - n * mean_a) / n, (sum_b - n * mean_b) / n
        moment: Column = about / n - rest_a * rest_b
        if spacing is None:
            return moment
        sizes = dict(zip(AXES[-self.axes :], spacing, strict=True))
        return moment * (sizes[a] * sizes[b])

    def variances(self, spacing: Sequence[float] | None = None) -> Column:
        """(d, n) variances of the pixel centres of each object along the axes of its ellipsoid, largest first."""
        names = AXES[-self.axes :]
        if self.axes == 2:  # in closed form
            yy, xx, yx = (self.covariance(a, b, spacing) for a, b in ("yy", "xx", "yx"))
            middle, spread = (yy + xx) / 2, np.hypot((yy - xx) / 2, yx)
            return np.stack([middle + spread, np.maximum(middle - spread, 0)])
        found = np.zeros((len(self.size), self.axes, self.axes))
        for (i, a), (j, b) in itertools.combinations_with_replacement(enumerate(names), 2):
            found[:, i, j] = found[:, j, i] = self.covariance(a, b, spacing)
        largest_first: Column = np.linalg.eigvalsh(found).T[::-1]
        return largest_first


def _root(values: Column, factor: float = 1) -> Column:
    roots: Column = factor * np.sqrt(values)
    return roots


def axis_length(totals: Totals, rank: int, spacing: Sequence[float] | None = None) -> Column:
    """(n,) length of an axis of the ellipse or ellipsoid of equal moments, 0 the longest, in units of the spacing.

    A solid ellipsoid of half axis a in d dimensions has variance a^2 / (d + 2) along it. 0 for an object 1 px wide.
    """
    return _root(4 * (totals.axes + 2) * np.maximum(totals.variances(spacing)[rank], 0))


def orientation(totals: Totals) -> Column:
    """(n,) radians from the y axis to the long axis, -pi/2 to pi/2; +-pi/4 if y and x have equal variance."""
    yy, xx, yx = (totals.covariance(a, b) for a, b in ("yy", "xx", "yx"))
    equal = np.where(yx > 0, np.pi / 4, -np.pi / 4)
    return np.where(yy == xx, equal, 0.5 * np.arctan2(2 * yx, yy - xx))


def eccentricity(totals: Totals) -> Column:
    """(n,) of the ellipse of equal second moments, 0 to 1; 1 for a straight row of pixels, 0 for a single pixel."""
    largest, smallest = totals.variances()
    return _root(1 - np.divide(smallest, largest, out=np.ones_like(largest), where=largest > 0))


def perimeter(totals: Totals) -> Column:
    """(n,) px. Source: Crofton, four directions, as `skimage.measure.perimeter_crofton`."""
    quarter = np.pi / 4
    # A line that crosses an object enters and leaves it: Crofton counts one of both.
    along = (totals.sum("crossings_y") + totals.sum("crossings_x")) // 2
    length: Column = quarter * along + quarter / np.sqrt(2) * (totals.sum("crossings_yx") // 2)
    return length


def perimeter_um(totals: Totals) -> Column:
    """(n,) um; NaN if pixels are not square."""
    height, width = totals.spacing
    # Only with square pixels do the four directions differ by 45 degrees.
    return perimeter(totals) * (height if height == width else np.nan)


def surface(totals: Totals, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Column:
    """(n,) in squared units of the spacing.

    The surface area follows from the number of crossings of all straight lines (Cauchy and Crofton). Here lines run
    through the pixel centres along the 13 directions of a window. A direction is weighted by the part of the sphere
    that is nearest to it, given the spacing.
    """
    area = np.zeros(len(totals.size))
    for line, factor in zip(lines_of(3), crossing_areas(spacing), strict=True):
        area += factor * totals.sum(f"crossings_{line}")
    return area


def crossing_areas(spacing: tuple[float, ...]) -> tuple[float, ...]:
    """Return the surface that one crossing represents, by kind of direction: z, y, x, zy, zx, yx, zyx.

    It is twice the share of the sphere of a direction, times the cross-section of each of its lines, which is the
    volume of a voxel divided by the distance of voxels along the line.

    Source: Crofton's formula in 13 directions (Ohser and Muecklich 2000; Lehmann and Legland 2012), with shares by
    Voronoi cells of the directions, for any spacing.

    >>> [round(c, 4) for c in crossing_areas((1.0, 1.0, 1.0))]
    [0.1831, 0.1831, 0.1831, 0.1046, 0.1046, 0.1046, 0.0813]
    """
    steps = np.array([s for s in itertools.product((-1, 0, 1), repeat=3) if any(s)])
    ways = steps * np.array(spacing)
    lengths = np.linalg.norm(ways, axis=1)
    shares = SphericalVoronoi(ways / lengths[:, None], threshold=1e-9).calculate_areas() / (4 * np.pi)
    factors = []
    for line in lines_of(3):
        # all of one kind are mirror images, hence equal: a direction and its opposite make one line
        k = steps.tolist().index([int(axis in line) for axis in AXES])
        factors.append(float(2 * (2 * shares[k]) * math.prod(spacing) / lengths[k]))
    return tuple(factors)


def diameter(size: Column, axes: int) -> Column:
    """(n,) of the circles or balls of these sizes, in the root of their unit."""
    diameter: Column = _root(4 / np.pi * size) if axes == 2 else np.cbrt(6 / np.pi * size)
    return diameter


def extent(totals: Totals) -> Column:
    """(n,) share of the box that the object fills, above 0 to 1."""
    share: Column = totals.size / totals.partial.box_size()
    return share


def crosses_tile_seam(totals: Totals) -> Column:
    """(n,) bool: the first and the last pixel of the box lie in different cells of the tile grid."""
    stride = np.array(totals.tile_stride)[:, None]
    crosses: Column = (totals.partial.starts // stride != (totals.partial.stops - 1) // stride).any(axis=0)
    return crosses


def mean(totals: Totals) -> Column:
    """(c, n) in units of intensity."""
    # Rounding must not move the mean of equal values beyond them.
    return np.clip(total(totals) / totals.size, totals.partial.lows, totals.partial.highs)


def total(totals: Totals) -> Column:
    """(c, n) integrated intensity."""
    lows, steps = _grid(totals)
    return lows * totals.size + totals.partial.codes[:, 0] * steps


def std(totals: Totals) -> Column:
    """(c, n) standard deviation, divided by n; 0 for a single pixel."""
    n, codes = totals.size, totals.partial.codes
    mean = codes[:, 0] // n
    rest = (codes[:, 0] - n * mean) / n
    if codes[:, 2].any():  # terms exceed 64 bits: use Python's integers and round once
        total, low, high = (codes[:, k].astype(object) for k in range(3))
        center = mean.astype(object)
        spread = high * 2**32 + low - 2 * center * total + n.astype(object) * center * center
        spread = spread.astype(np.float64)
    else:
        spread = codes[:, 1] - 2 * mean * codes[:, 0] + n * mean * mean
    return _root(np.maximum(spread / n - rest * rest, 0)) * _grid(totals)[1]


def _grid(totals: Totals) -> tuple[Column, Column]:
    """(c, 1) value of code 0 and distance of codes."""
    steps = np.array([1 / s if s else 0.0 for s in totals.coding.scales])
    return np.array(totals.coding.lows)[:, None], steps[:, None]
