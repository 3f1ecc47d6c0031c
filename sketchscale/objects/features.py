"""What is reported about each object: the FEATURES table, from exact sums to columns.

A feature is three functions. The first two (what a block adds, how blocks combine) are shared and live in `partials`;
the third, `finalize`, is here, one line of the table each. A new feature that follows from the sums there is one entry;
one that needs another sum adds a row to SUMS first. Everything that is divided or rooted is so once, from whole-image
integers: the table of an image cut into blocks is the table of the whole image, bit for bit.

Positions are pixel indices of level 0: the centre of the first pixel is (0, 0). Lengths and areas come in pixels, and
in um when the spacing is known: `y_um` is `y` times the spacing. Definitions are those of scikit-image's `regionprops`
(tests compare all of them), with one choice where it has several: the perimeter is Crofton's with four directions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow

from sketchscale.errors import InputError, UnknownNameError
from sketchscale.objects.partials import Coding, Partial, image_coding, is_exact

__all__ = ["FEATURES", "Feature", "MeasureConfig", "Totals", "channel_names", "feature_table"]

Column = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureConfig:
    """What is measured, and what the finalizers must know besides sums.

    Attributes:
        shape: (y, x) of the whole plane; an object that reaches its edge may be cut by it.
        channels: names of the intensity channels, in their order; none measures geometry only.
        dtype: of the intensities.
        ranges: lowest and highest intensity of each channel in the whole plane; needed for floats and 64-bit integers
            (see `partials`), ignored for the rest.
        spacing: um per pixel (y, x), None when unknown: then there are no columns in um.
        tile_stride: (y, x) distance of the lines of the network's fixed tile grid, from (0, 0); None leaves the column
            `crosses_tile_seam` out. It never follows the blocks of a run.
        features: names of FEATURES to report, None for all.

    Raises:
        InputError: a size that is not positive, or channels without ranges where these are needed.
        UnknownNameError: a feature that is not in the table.
    """

    shape: tuple[int, int]
    channels: tuple[str, ...] = ()
    dtype: str = "uint8"
    ranges: tuple[tuple[float, float], ...] = ()
    spacing: tuple[float, float] | None = None
    tile_stride: tuple[int, int] | None = None
    features: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name, values in (("spacing", self.spacing), ("tile_stride", self.tile_stride)):
            if values is not None and not min(values) > 0:
                raise InputError.of(found=f"{name} {values}", expected="two positive numbers", fix="correct it")
        if self.channels and not is_exact(self.dtype) and len(self.ranges) != len(self.channels):
            raise InputError.of(
                found=f"{len(self.ranges)} intensity ranges for {len(self.channels)} channels of {self.dtype}",
                expected="lowest and highest value of each channel",
                fix="take them from plan_ranges",
            )
        for name in self.features or ():
            if name not in FEATURES:
                raise UnknownNameError.among("feature", name, FEATURES)

    @property
    def coding(self) -> Coding:
        """How intensities become integers."""
        ranges = self.ranges if len(self.ranges) == len(self.channels) else ((0.0, 0.0),) * len(self.channels)
        return image_coding(self.dtype, ranges)


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What finalizers see: the combined sums of n whole objects, and the configuration."""

    partial: Partial
    config: MeasureConfig

    def sum(self, name: str) -> npt.NDArray[np.int64]:
        return self.partial.sum(name)

    @property
    def area(self) -> npt.NDArray[np.int64]:
        return self.partial.sum("area")

    @property
    def spacing(self) -> tuple[float, float]:
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


def _axis_major(totals: Totals, spacing: tuple[float, float] = (1.0, 1.0)) -> Column:
    return _root(totals.variances(spacing)[0], 4)


def _axis_minor(totals: Totals, spacing: tuple[float, float] = (1.0, 1.0)) -> Column:
    return _root(totals.variances(spacing)[1], 4)


def _orientation(totals: Totals) -> Column:
    yy, xx, yx = totals.covariance((1.0, 1.0))
    equal = np.where(yx > 0, np.pi / 4, -np.pi / 4)
    return np.where(yy == xx, equal, 0.5 * np.arctan2(2 * yx, yy - xx))


def _eccentricity(totals: Totals) -> Column:
    largest, smallest = totals.variances((1.0, 1.0))
    return _root(1 - np.divide(smallest, largest, out=np.ones_like(largest), where=largest > 0))


def _perimeter(totals: Totals) -> Column:
    quarter = np.pi / 4
    length: Column = quarter * totals.sum("crofton_axis") + quarter / np.sqrt(2) * totals.sum("crofton_diagonal")
    return length


def _perimeter_um(totals: Totals) -> Column:
    height, width = totals.spacing
    # Four directions at 45 degrees are those of square pixels only.
    return _perimeter(totals) * (height if height == width else np.nan)


def _area_um2(totals: Totals) -> Column:
    return totals.area * (totals.spacing[0] * totals.spacing[1])


def _diameter(area: Column) -> Column:
    return _root(4 / np.pi * area)


def _extent(totals: Totals) -> Column:
    share: Column = totals.area / np.prod(totals.partial.stops - totals.partial.starts, axis=0)
    return share


def _touches_edge(totals: Totals) -> Column:
    shape = np.array(totals.config.shape)[:, None]
    at_edge: Column = ((totals.partial.starts == 0) | (totals.partial.stops == shape)).any(axis=0)
    return at_edge


def _crosses_tile_seam(totals: Totals) -> Column:
    stride = np.array(totals.config.tile_stride)[:, None]
    crosses: Column = (totals.partial.starts // stride != (totals.partial.stops - 1) // stride).any(axis=0)
    return crosses


def _mean(totals: Totals) -> Column:
    # Rounding must not push the mean of equal values past them.
    return np.clip(_total(totals) / totals.area, totals.partial.lows, totals.partial.highs)


def _total(totals: Totals) -> Column:
    lows, steps = _grid(totals)
    return lows * totals.area + totals.partial.codes[:, 0] * steps


def _std(totals: Totals) -> Column:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One entry of the table.

    Attributes:
        finalize: from `Totals` of n objects to (n,), or to (c, n) for a feature of every channel.
        means: what it is, for documentation and exports.
        of: "object", or "channel" (one column a channel: `<feature>_<channel>`).
        needs: "spacing" or "tile_stride" when the feature is left out without it.
    """

    finalize: Callable[[Totals], Column]
    means: str
    of: str = "object"
    needs: str | None = None


FEATURES: dict[str, Feature] = {
    "y": Feature(finalize=lambda t: t.sum("y") / t.area, means="centroid, pixel index"),
    "x": Feature(finalize=lambda t: t.sum("x") / t.area, means="centroid, pixel index"),
    "area": Feature(finalize=lambda t: t.area, means="number of pixels"),
    "box_y_start": Feature(finalize=lambda t: t.partial.starts[0], means="first row"),
    "box_x_start": Feature(finalize=lambda t: t.partial.starts[1], means="first column"),
    "box_y_stop": Feature(finalize=lambda t: t.partial.stops[0], means="last row + 1"),
    "box_x_stop": Feature(finalize=lambda t: t.partial.stops[1], means="last column + 1"),
    "axis_major": Feature(finalize=_axis_major, means="long axis of the ellipse with the same second moments"),
    "axis_minor": Feature(finalize=_axis_minor, means="short axis of that ellipse"),
    "orientation": Feature(
        finalize=_orientation,
        means="angle from the y axis to the long axis, -pi/2 to pi/2, positive towards +x; -pi/4 when there is none",
    ),
    "eccentricity": Feature(finalize=_eccentricity, means="of that ellipse; 0 is a circle"),
    "perimeter": Feature(finalize=_perimeter, means="Crofton estimate with four directions, holes included"),
    "equivalent_diameter": Feature(finalize=lambda t: _diameter(t.area), means="of the circle of equal area"),
    "extent": Feature(finalize=_extent, means="area / area of the box"),
    "euler_number": Feature(finalize=lambda t: t.sum("euler"), means="8-connected pieces minus holes"),
    "touches_edge": Feature(finalize=_touches_edge, means="has a pixel at the edge of the image"),
    "crosses_tile_seam": Feature(
        finalize=_crosses_tile_seam, means="its box crosses a line of the network's tile grid", needs="tile_stride"
    ),
    "y_um": Feature(finalize=lambda t: t.sum("y") / t.area * t.spacing[0], means="centroid", needs="spacing"),
    "x_um": Feature(finalize=lambda t: t.sum("x") / t.area * t.spacing[1], means="centroid", needs="spacing"),
    "area_um2": Feature(finalize=_area_um2, means="area", needs="spacing"),
    "axis_major_um": Feature(finalize=lambda t: _axis_major(t, t.spacing), means="long axis", needs="spacing"),
    "axis_minor_um": Feature(finalize=lambda t: _axis_minor(t, t.spacing), means="short axis", needs="spacing"),
    "perimeter_um": Feature(finalize=_perimeter_um, means="missing unless pixels are square", needs="spacing"),
    "equivalent_diameter_um": Feature(
        finalize=lambda t: _diameter(_area_um2(t)), means="of the circle of equal area", needs="spacing"
    ),
    "intensity_mean": Feature(finalize=_mean, means="mean intensity", of="channel"),
    "intensity_std": Feature(finalize=_std, means="standard deviation (divided by n)", of="channel"),
    "intensity_min": Feature(finalize=lambda t: t.partial.lows, means="smallest intensity", of="channel"),
    "intensity_max": Feature(finalize=lambda t: t.partial.highs, means="largest intensity", of="channel"),
    "intensity_sum": Feature(finalize=_total, means="integrated intensity", of="channel"),
}
"""Name of the column to how it is computed. A new feature is a function and an entry here."""


def channel_names(channels: Sequence[str]) -> tuple[str, ...]:
    """Channel names as they end column names: lower case, one underscore for anything else, numbered when equal.

    >>> channel_names(["DAPI 405", "dapi-405", ""])
    ('dapi_405', 'dapi_405_1', 'channel_2')
    """
    names: list[str] = []
    for i, channel in enumerate(channels):
        plain = re.sub(r"[^0-9a-z]+", "_", channel.lower()).strip("_") or f"channel_{i}"
        names.append(plain if plain not in names else f"{plain}_{i}")
    return tuple(names)


def feature_table(total: Partial, config: MeasureConfig) -> pyarrow.Table:
    """The table of all objects, ordered by label: column `label`, then FEATURES in their order.

    Args:
        total: combined partials of every block of the plane; no object: a table of 0 rows with all columns.
        config: as the partials were made with.
    """
    totals = Totals(partial=total, config=config)
    columns: dict[str, Column] = {"label": total.label.astype(np.int64)}
    for name, feature in FEATURES.items():
        if config.features is not None and name not in config.features:
            continue
        if feature.needs is None or getattr(config, feature.needs) is not None:
            columns.update(_columns(name, feature, totals))
    return pyarrow.table({name: pyarrow.array(values, from_pandas=True) for name, values in columns.items()})


def _columns(name: str, feature: Feature, totals: Totals) -> dict[str, Column]:
    if feature.of == "object":
        return {name: feature.finalize(totals)}
    if not totals.config.channels:
        return {}
    names = channel_names(totals.config.channels)
    return {f"{name}_{channel}": row for channel, row in zip(names, feature.finalize(totals), strict=True)}
