"""What is known of whole objects, and the arithmetic that makes columns of it.

The third function of a feature (see `features`): everything that is divided or rooted is so here, once, from
whole-image integers and from crops that no block has cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sketchscale.objects.measurement.neighbours import Neighbours
from sketchscale.objects.measurement.partials import Partial

if TYPE_CHECKING:
    from sketchscale.objects.measurement.features import MeasureConfig

__all__ = [
    "CHANNEL_VALUES",
    "OBJECT_VALUES",
    "Crops",
    "Totals",
    "area_um2",
    "axis_major",
    "axis_minor",
    "crosses_tile_seam",
    "diameter",
    "eccentricity",
    "extent",
    "mean",
    "orientation",
    "perimeter",
    "perimeter_um",
    "std",
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
    """What was measured on the crops of n objects.

    Attributes:
        label: (n,) ids.
        values: (4, n) rows as OBJECT_VALUES.
        channels: (c, 13, n) rows as CHANNEL_VALUES. NaN where there is no value: part not wanted, no background in the
            ring, no two pixels to compare, a box larger than CROP_LIMIT.
    """

    label: npt.NDArray[np.uint64]
    values: npt.NDArray[np.float64]
    channels: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What finalizers see of n whole objects: combined sums, values of crops, neighbours, and the configuration."""

    partial: Partial
    config: MeasureConfig
    crops: Crops | None = None
    near: Neighbours | None = None

    def sum(self, name: str) -> npt.NDArray[np.int64]:
        """(n,) of SUMS."""
        return self.partial.sum(name)

    def crop(self, name: str) -> Column:
        """(n,) of OBJECT_VALUES, or (c, n) of CHANNEL_VALUES."""
        assert self.crops is not None, "features of crops are left out without crops"
        values: Column = (
            self.crops.values[OBJECT_VALUES.index(name)]
            if name in OBJECT_VALUES
            else self.crops.channels[:, CHANNEL_VALUES.index(name)]
        )
        return values

    def neighbour(self, name: str) -> Column:
        """(n,) one attribute of `Neighbours`."""
        values: Column = getattr(self.near, name)
        return values

    @property
    def area(self) -> npt.NDArray[np.int64]:
        """(n,) pixels."""
        return self.partial.sum("area")

    @property
    def spacing(self) -> tuple[float, float]:
        """um per pixel (y, x); (1, 1) when unknown."""
        return self.config.spacing or (1.0, 1.0)

    def covariance(self, spacing: tuple[float, float]) -> tuple[Column, Column, Column]:
        """(yy, xx, yx) of the pixel centres of each object, in squared units of the spacing."""
        n = self.area
        mean_y, mean_x = self.sum("y") // n, self.sum("x") // n
        # About a whole pixel near the centroid the sums are small, and exact modulo 2^64 although the terms wrap.
        rest_y, rest_x = self.sum("y") - n * mean_y, self.sum("x") - n * mean_x
        yy = self.sum("yy") - 2 * mean_y * self.sum("y") + n * mean_y * mean_y
        xx = self.sum("xx") - 2 * mean_x * self.sum("x") + n * mean_x * mean_x
        yx = self.sum("yx") - mean_y * self.sum("x") - mean_x * self.sum("y") + n * mean_y * mean_x
        dy, dx = rest_y / n, rest_x / n
        height, width = spacing
        return (
            (yy / n - dy * dy) * (height * height),
            (xx / n - dx * dx) * (width * width),
            (yx / n - dy * dx) * (height * width),
        )

    def variances(self, spacing: tuple[float, float]) -> tuple[Column, Column]:
        """(largest, smallest) variance of the pixel centres of each object along any direction."""
        yy, xx, yx = self.covariance(spacing)
        middle, spread = (yy + xx) / 2, np.hypot((yy - xx) / 2, yx)
        return middle + spread, np.maximum(middle - spread, 0)


def _root(values: Column, factor: float = 1) -> Column:
    roots: Column = factor * np.sqrt(values)
    return roots


def axis_major(totals: Totals, spacing: tuple[float, float] = (1.0, 1.0)) -> Column:
    """(n,) in units of the spacing. A solid ellipse of half axis a has the variance a^2 / 4 along it."""
    return _root(totals.variances(spacing)[0], 4)


def axis_minor(totals: Totals, spacing: tuple[float, float] = (1.0, 1.0)) -> Column:
    """(n,) as `axis_major`, along the short axis; 0 for an object one pixel wide."""
    return _root(totals.variances(spacing)[1], 4)


def orientation(totals: Totals) -> Column:
    """(n,) radians from the y axis to the long one, -pi/2 to pi/2; +-pi/4 where y and x vary alike."""
    yy, xx, yx = totals.covariance((1.0, 1.0))
    equal = np.where(yx > 0, np.pi / 4, -np.pi / 4)
    return np.where(yy == xx, equal, 0.5 * np.arctan2(2 * yx, yy - xx))


def eccentricity(totals: Totals) -> Column:
    """(n,) of the ellipse of equal second moments, 0 to 1; 1 for a straight row of pixels, 0 for a single one."""
    largest, smallest = totals.variances((1.0, 1.0))
    return _root(1 - np.divide(smallest, largest, out=np.ones_like(largest), where=largest > 0))


def perimeter(totals: Totals) -> Column:
    """(n,) px. Source: Crofton, four directions, as `skimage.measure.perimeter_crofton`."""
    quarter = np.pi / 4
    length: Column = quarter * totals.sum("crofton_axis") + quarter / np.sqrt(2) * totals.sum("crofton_diagonal")
    return length


def perimeter_um(totals: Totals) -> Column:
    """(n,) um; NaN where pixels are not square."""
    height, width = totals.spacing
    # Four directions at 45 degrees are those of square pixels only.
    return perimeter(totals) * (height if height == width else np.nan)


def area_um2(totals: Totals) -> Column:
    """(n,) um2."""
    return totals.area * (totals.spacing[0] * totals.spacing[1])


def diameter(area: Column) -> Column:
    """(n,) of the circles of these areas, in the root of their unit."""
    return _root(4 / np.pi * area)


def extent(totals: Totals) -> Column:
    """(n,) share of the box that the object fills, above 0 to 1."""
    share: Column = totals.area / totals.partial.box_size()
    return share


def crosses_tile_seam(totals: Totals) -> Column:
    """(n,) bool: the first and the last pixel of the box lie in different cells of the tile grid."""
    stride = np.array(totals.config.tile_stride)[:, None]
    crosses: Column = (totals.partial.starts // stride != (totals.partial.stops - 1) // stride).any(axis=0)
    return crosses


def mean(totals: Totals) -> Column:
    """(c, n) in units of intensity."""
    # Rounding must not push the mean of equal values past them.
    return np.clip(total(totals) / totals.area, totals.partial.lows, totals.partial.highs)


def total(totals: Totals) -> Column:
    """(c, n) integrated intensity."""
    lows, steps = _grid(totals)
    return lows * totals.area + totals.partial.codes[:, 0] * steps


def std(totals: Totals) -> Column:
    """(c, n) standard deviation, divided by n; 0 for a single pixel."""
    n, codes = totals.area, totals.partial.codes
    mean = codes[:, 0] // n
    rest = (codes[:, 0] - n * mean) / n
    if codes[:, 2].any():
        spread = _wide_spread(codes, mean, n)
    else:
        spread = codes[:, 1] - 2 * mean * codes[:, 0] + n * mean * mean
    return _root(np.maximum(spread / n - rest * rest, 0)) * _grid(totals)[1]


def _wide_spread(codes: Column, mean: Column, n: Column) -> Column:
    """Sums of squared differences that do not fit into 64 bits on the way: Python's integers, rounded once."""
    total, low, high = (codes[:, k].astype(object) for k in range(3))
    center = mean.astype(object)
    spread: Column = high * 2**32 + low - 2 * center * total + n.astype(object) * center * center
    return spread.astype(np.float64)


def _grid(totals: Totals) -> tuple[Column, Column]:
    """(c, 1) value of code 0 and distance of codes."""
    coding = totals.config.coding
    steps = np.array([1 / s if s else 0.0 for s in coding.scales])
    return np.array(coding.lows)[:, None], steps[:, None]
