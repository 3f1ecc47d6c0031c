"""The FEATURES table: every feature of an object, from exact sums and crops to columns.

A feature is three functions. The first two (what a block adds, how blocks combine) are shared: `blocks` and `partials`,
or `crops` for features that need the whole object. The third, `finalize`, is one entry of the table; its arithmetic is
in `totals`. A new feature that follows from existing sums is one entry; one that needs another sum first adds a row to
`sum_names`, one that needs pixels adds a row to OBJECT_VALUES or CHANNEL_VALUES. The table of an image cut into blocks
is the table of the whole image, bit for bit.

Objects of planes and volumes share the table; features that are not defined for the number of axes are left out.
Positions are pixel indices of level 0: the centre of the first pixel is 0 along each axis. Sizes are in pixels
(voxels), and in um if the spacing is known: `y_um` is `y` times the spacing. Definitions are those of scikit-image's
`regionprops` (tests compare all of them); perimeter and surface are Crofton's, with 4 and 13 directions.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow

from sketchscale.errors import InputError, UnknownNameError
from sketchscale.objects.measurement import totals as to
from sketchscale.objects.measurement.neighbours import Neighbours
from sketchscale.objects.measurement.partials import Coding, Partial, image_coding, is_exact
from sketchscale.objects.measurement.totals import Crops, Totals

__all__ = [
    "CROP_PARTS",
    "FEATURES",
    "GROUPS",
    "Feature",
    "MeasureConfig",
    "channel_names",
    "choose_features",
    "feature_table",
]

Column = npt.NDArray[Any]

GROUPS = ("position", "geometry", "intensity", "texture", "neighbours", "ring")
"""Names of groups of features. Those of position are always reported, because later steps need them."""

CROP_PARTS = ("shape", "touching", "percentiles", "texture", "ring")
"""What can be measured on crops; only parts that a chosen feature needs are measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureConfig:
    """The image, and the features to measure on it.

    Attributes:
        shape: ([z,] y, x) of the whole image; an object that reaches an edge of it may be cut by it.
        channels: names of the intensity channels, in order; with none only geometry is measured.
        dtype: of the intensities.
        ranges: lowest and highest intensity of each channel in the whole image; needed for floats and 64-bit integers
            (see `partials`), ignored for other types.
        spacing: um per pixel along each axis; None if unknown, then there are no columns in um.
        tile_stride: distance of the lines of the network's fixed tile grid along each axis, from 0; None leaves the
            column `crosses_tile_seam` out. It does not depend on the blocks of a run.
        features: names of FEATURES or of GROUPS to report in addition to the position, None for all.

    Raises:
        InputError: a size is not positive, or ranges are needed and missing.
        UnknownNameError: a feature is not in the table.
    """

    shape: tuple[int, ...]
    channels: tuple[str, ...] = ()
    dtype: str = "uint8"
    ranges: tuple[tuple[float, float], ...] = ()
    spacing: tuple[float, ...] | None = None
    tile_stride: tuple[int, ...] | None = None
    features: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name, values in (("spacing", self.spacing), ("tile_stride", self.tile_stride)):
            if values is not None and not (len(values) == len(self.shape) and min(values) > 0):
                expected = f"{len(self.shape)} positive numbers"
                raise InputError.of(found=f"{name} {values}", expected=expected, fix="correct it")
        if self.channels and not is_exact(self.dtype) and len(self.ranges) != len(self.channels):
            raise InputError.of(
                found=f"{len(self.ranges)} intensity ranges for {len(self.channels)} channels of {self.dtype}",
                expected="lowest and highest value of each channel",
                fix="take them from plan_ranges",
            )
        choose_features(self.features, axes=len(self.shape))

    @property
    def coding(self) -> Coding:
        """The coding of intensities as integers."""
        ranges = self.ranges if len(self.ranges) == len(self.channels) else ((0.0, 0.0),) * len(self.channels)
        return image_coding(self.dtype, ranges)

    @property
    def chosen(self) -> tuple[str, ...]:
        """Names of the chosen features that are possible for this image, in the order of FEATURES."""
        return tuple(
            name
            for name in choose_features(self.features, axes=len(self.shape))
            if (FEATURES[name].needs is None or getattr(self, FEATURES[name].needs or "") is not None)
            and (FEATURES[name].of == "object" or self.channels)
        )

    @property
    def crop_parts(self) -> tuple[bool, ...]:
        """Which of CROP_PARTS are needed."""
        return tuple(map(self.wants, CROP_PARTS))

    def wants(self, part: str) -> bool:
        """Whether a chosen feature needs this part of CROP_PARTS, or "neighbours"."""
        return any(FEATURES[name].part == part for name in self.chosen)

    @property
    def section(self) -> float:
        """Distance of sections in pixels of a section; 1 if unknown, and in a plane."""
        return self.spacing[0] / self.spacing[-1] if self.spacing and len(self.shape) == 3 else 1.0


@dataclass(frozen=True, slots=True)
class Feature:
    """One entry of the table.

    Attributes:
        finalize: from `Totals` of n objects to (n,), or to (c, n) for a feature of every channel.
        means: its meaning, for documentation and exports.
        group: one of GROUPS.
        of: "object", or "channel" (one column per channel: `<feature>_<channel>`).
        part: what it needs in addition to sums: one of CROP_PARTS, or "neighbours".
        needs: "spacing" or "tile_stride"; without it the feature is left out.
        whole: the column has integers, missing where the value is NaN.
        axes: numbers of axes for which it is defined.
    """

    finalize: Callable[[Totals], Column]
    means: str
    _: KW_ONLY
    group: str
    of: str = "object"
    part: str | None = None
    needs: str | None = None
    whole: bool = False
    axes: tuple[int, ...] = (2, 3)


_position = functools.partial(Feature, group="position")
_geometry = functools.partial(Feature, group="geometry")
_shape = functools.partial(Feature, group="geometry", part="shape", axes=(2,))
_near = functools.partial(Feature, group="neighbours", part="neighbours")
_UM, _SEAM, _PLANE, _VOLUME = "spacing", "tile_stride", (2,), (3,)


def _box(name: str, axis: int, means: str, axes: tuple[int, ...] = (2, 3)) -> Feature:
    return _position(finalize=lambda t: getattr(t.partial, name)[axis], means=means, axes=axes)


def _um(finalize: Callable[[Totals], Column], means: str, axes: tuple[int, ...] = (2, 3)) -> Feature:
    return _geometry(finalize=finalize, means=means, needs=_UM, axes=axes)


def _intensity(finalize: Callable[[Totals], Column], means: str) -> Feature:
    return Feature(finalize=finalize, means=means, group="intensity", of="channel")


def _cropped(value: str, means: str, group: str, part: str) -> Feature:
    """Return the feature that is one of CHANNEL_VALUES."""
    return Feature(finalize=lambda t: t.crop(value), means=means, group=group, of="channel", part=part)


FEATURES: dict[str, Feature] = {
    "z": _position(lambda t: t.center("z"), "centroid, pixel index", axes=_VOLUME),
    "y": _position(lambda t: t.center("y"), "centroid, pixel index"),
    "x": _position(lambda t: t.center("x"), "centroid, pixel index"),
    "area": _position(lambda t: t.size, "number of pixels", axes=_PLANE),
    "volume": _position(lambda t: t.size, "number of voxels", axes=_VOLUME),
    "box_z_start": _box("starts", -3, "first section", _VOLUME),
    "box_y_start": _box("starts", -2, "first row"),
    "box_x_start": _box("starts", -1, "first column"),
    "box_z_stop": _box("stops", -3, "last section + 1", _VOLUME),
    "box_y_stop": _box("stops", -2, "last row + 1"),
    "box_x_stop": _box("stops", -1, "last column + 1"),
    "axis_major": _geometry(lambda t: to.axis_length(t, 0), "longest axis of the ellipse (ellipsoid) of equal moments"),
    "axis_middle": _geometry(lambda t: to.axis_length(t, 1), "its middle axis", axes=_VOLUME),
    "axis_minor": _geometry(lambda t: to.axis_length(t, t.axes - 1), "its shortest axis"),
    "orientation": _geometry(
        to.orientation,
        "angle from the y axis to the long axis, -pi/2 to pi/2, positive towards +x; -pi/4 when there is none",
        axes=_PLANE,
    ),
    "eccentricity": _geometry(to.eccentricity, "of that ellipse; 0 is a circle", axes=_PLANE),
    "perimeter": _geometry(to.perimeter, "Crofton estimate with four directions, holes included", axes=_PLANE),
    "equivalent_diameter": _geometry(lambda t: to.diameter(t.size, t.axes), "of the circle or ball of equal size"),
    "extent": _geometry(to.extent, "size / size of the box"),
    "solidity": _shape(lambda t: t.size / t.crop("hull_area"), "area / pixels of the convex hull"),
    "feret_diameter_max": _shape(
        lambda t: t.crop("feret"), "largest distance between side middles of pixels of the convex hull"
    ),
    "surface": _geometry(to.surface, "Crofton estimate with 13 directions, holes included", axes=_VOLUME),
    "euler_number": _geometry(
        lambda t: t.sum("euler"), "8-connected parts minus holes; 26-connected ones minus tunnels plus cavities"
    ),
    "touches_edge": _geometry(lambda t: t.partial.at_edge(t.shape), "has a pixel at the edge of the image"),
    "crosses_tile_seam": _geometry(
        to.crosses_tile_seam, "its box crosses a line of the network's tile grid", needs=_SEAM
    ),
    "z_um": _um(lambda t: t.center_um("z"), "centroid", _VOLUME),
    "y_um": _um(lambda t: t.center_um("y"), "centroid"),
    "x_um": _um(lambda t: t.center_um("x"), "centroid"),
    "area_um2": _um(lambda t: t.size * t.pixel, "area", _PLANE),
    "volume_um3": _um(lambda t: t.size * t.pixel, "volume", _VOLUME),
    "axis_major_um": _um(lambda t: to.axis_length(t, 0, t.spacing), "longest axis"),
    "axis_middle_um": _um(lambda t: to.axis_length(t, 1, t.spacing), "middle axis", _VOLUME),
    "axis_minor_um": _um(lambda t: to.axis_length(t, t.axes - 1, t.spacing), "shortest axis"),
    "perimeter_um": _um(to.perimeter_um, "missing unless pixels are square", _PLANE),
    "equivalent_diameter_um": _um(
        lambda t: to.diameter(t.size * t.pixel, t.axes), "of the circle or ball of equal size"
    ),
    "feret_diameter_max_um": _shape(lambda t: t.crop("feret_um"), "the same in um", needs=_UM),
    "surface_um2": _um(lambda t: to.surface(t, t.spacing), "Crofton estimate with 13 directions", _VOLUME),
    "intensity_mean": _intensity(to.mean, "mean intensity"),
    "intensity_std": _intensity(to.std, "standard deviation (divided by n)"),
    "intensity_min": _intensity(lambda t: t.partial.lows, "smallest intensity"),
    "intensity_max": _intensity(lambda t: t.partial.highs, "largest intensity"),
    "intensity_sum": _intensity(to.total, "integrated intensity"),
    "intensity_p05": _cropped("p05", "5 % of the pixels are darker (linear)", "intensity", "percentiles"),
    "intensity_p25": _cropped("p25", "lower quartile", "intensity", "percentiles"),
    "intensity_p50": _cropped("p50", "median", "intensity", "percentiles"),
    "intensity_p75": _cropped("p75", "upper quartile", "intensity", "percentiles"),
    "intensity_p95": _cropped("p95", "5 % of the pixels are brighter (linear)", "intensity", "percentiles"),
    "gradient_mean": _cropped("gradient_mean", "mean length of the gradient, per px", "texture", "texture"),
    "gradient_std": _cropped("gradient_std", "standard deviation of that length", "texture", "texture"),
    "texture_contrast": _cropped("texture_contrast", "mean squared difference of grey levels", "texture", "texture"),
    "texture_correlation": _cropped("texture_correlation", "of neighbouring grey levels", "texture", "texture"),
    "texture_homogeneity": _cropped("texture_homogeneity", "nearness of grey levels, 1 if equal", "texture", "texture"),
    "texture_energy": _cropped("texture_energy", "1 where all pairs are alike", "texture", "texture"),
    "nearest_distance": _near(lambda t: t.neighbour("distance"), "to the nearest other centroid; missing when alone"),
    "nearest_distance_um": _near(lambda t: t.neighbour("distance_um"), "to the nearest in um", needs=_UM),
    "neighbour_count": _near(lambda t: t.neighbour("count"), "other centroids within the radius"),
    "neighbour_area_mean": _near(lambda t: t.neighbour("size"), "of these objects; missing if none", axes=_PLANE),
    "neighbour_volume_mean": _near(lambda t: t.neighbour("size"), "of these objects; missing if none", axes=_VOLUME),
    "neighbour_area_mean_um2": _near(
        lambda t: t.neighbour("size") * t.pixel, "the same in um2", needs=_UM, axes=_PLANE
    ),
    "neighbour_volume_mean_um3": _near(
        lambda t: t.neighbour("size") * t.pixel, "the same in um3", needs=_UM, axes=_VOLUME
    ),
    "touching_count": _near(
        lambda t: t.crop("touching"),
        "other labels among the 8 or 26 neighbours of its pixels",
        part="touching",
        whole=True,
    ),
    "ring_mean": _cropped("ring_mean", "background 3 to 8 px from the object; missing if none", "ring", "ring"),
    "ring_std": _cropped("ring_std", "standard deviation there", "ring", "ring"),
}
"""Column name to feature. A new feature is a function and an entry here."""


def choose_features(features: Sequence[str] | None, without: Sequence[str] = (), *, axes: int = 2) -> tuple[str, ...]:
    """Return names of features from names and groups, in the order of FEATURES; the position is always included.

    Args:
        features: names of FEATURES or of GROUPS; None is all.
        without: names or groups to leave out.
        axes: of the objects, 2 or 3.

    Raises:
        UnknownNameError: a name is neither a feature of such objects nor a group.

    >>> choose_features(["ring"], without=["ring_std"])[-1]
    'ring_mean'
    """
    known = {name: feature.group for name, feature in FEATURES.items() if axes in feature.axes}
    for name in (*(features or ()), *without):
        if name not in known and name not in GROUPS:
            kind = "feature" if axes == 2 else "feature of a volume"
            raise UnknownNameError.among(kind, name, (*known, *GROUPS))
    wanted = {n for n, group in known.items() if features is None or n in features or group in features}
    return tuple(
        n
        for n, group in known.items()
        if group == "position" or (n in wanted and n not in without and group not in without)
    )


def channel_names(channels: Sequence[str]) -> tuple[str, ...]:
    """Return channel names as they end column names: lower case, underscores for other characters, numbered if equal.

    >>> channel_names(["DAPI 405", "dapi-405", "", "dapi-405-1"])
    ('dapi_405', 'dapi_405_1', 'channel_2', 'dapi_405_1_3')
    """
    names: list[str] = []
    for i, channel in enumerate(channels):
        name = re.sub(r"[^0-9a-z]+", "_", channel.lower()).strip("_") or f"channel_{i}"
        while name in names:
            name = f"{name}_{i}"
        names.append(name)
    return tuple(names)


def feature_table(
    total: Partial, config: MeasureConfig, crops: Crops | None = None, near: Neighbours | None = None
) -> pyarrow.Table:
    """Return the table of some objects, in the order of `total`: column `label`, then FEATURES in their order.

    Args:
        total: combined partials of all blocks of the image; without objects the table has all columns and no rows.
        config: with which the partials were made.
        crops, near: of the same objects in the same order; None leaves out the features that need them.
    """
    totals = Totals(
        partial=total,
        shape=config.shape,
        spacing=config.spacing or (1.0,) * len(config.shape),
        tile_stride=config.tile_stride,
        coding=config.coding,
        crops=crops,
        near=near,
    )
    known = {None, *(CROP_PARTS if crops else ()), *(("neighbours",) if near else ())}
    columns: dict[str, pyarrow.Array] = {"label": pyarrow.array(total.label.astype(np.int64))}
    for name in config.chosen:
        feature = FEATURES[name]
        if feature.part in known:
            values, names = feature.finalize(totals), [name]
            if feature.of == "channel":
                names = [f"{name}_{channel}" for channel in channel_names(config.channels)]
            for key, row in zip(names, values if feature.of == "channel" else [values], strict=True):
                array = pyarrow.array(row, from_pandas=True)
                columns[key] = array.cast(pyarrow.int64()) if feature.whole else array
    return pyarrow.table(columns)
