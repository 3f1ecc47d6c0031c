"""What is reported about each object of a volume: the SOLID_FEATURES table, from exact sums to columns.

Everything that is divided or rooted is so once, from integers of the whole volume (`solids`): the table of a volume cut
into blocks is that of the whole volume, bit for bit. Positions are voxel indices of level 0, axes (z, y, x); lengths,
areas and volumes come in voxels, and in um when the spacing is known. Definitions are those of scikit-image's
`regionprops` where it has the feature (tests compare all).

Surface: a straight line that crosses an object meets its surface; the area is what all lines together say (Cauchy and
Crofton). Here lines run through the voxel centres along the 13 directions of a 2 x 2 x 2 window. A direction counts for
the part of the sphere that is nearest to it, by the spacing of the volume.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow
from scipy.spatial import SphericalVoronoi

from sketchscale.errors import UnknownNameError
from sketchscale.objects.measurement.features import FEATURES, channel_names
from sketchscale.objects.measurement.partials import SUMS, Partial
from sketchscale.objects.measurement.solids import LINES, SOLID_INTENSITIES, SOLID_SUMS, SolidConfig, Spacing
from sketchscale.objects.measurement.totals import Totals

__all__ = [
    "SOLID_FEATURES",
    "SOLID_GROUPS",
    "SolidFeature",
    "Solids",
    "choose_solid_features",
    "crossing_areas",
    "solid_table",
]

Column = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Solids:
    """What columns are computed from: the combined sums of n whole objects, and the configuration."""

    partial: Partial
    config: SolidConfig

    def sum(self, name: str) -> npt.NDArray[np.int64]:
        """(n,) one row of the sums, by its name in SOLID_SUMS."""
        row: npt.NDArray[np.int64] = self.partial.sums[SOLID_SUMS.index(name)]
        return row

    @property
    def volume(self) -> npt.NDArray[np.int64]:
        """(n,) voxels."""
        return self.sum("volume")

    @property
    def spacing(self) -> Spacing:
        """um per voxel (z, y, x); (1, 1, 1) when unknown."""
        return self.config.spacing or (1.0, 1.0, 1.0)

    def center(self, axis: str) -> Column:
        """(n,) centroid along an axis, voxel index."""
        position: Column = self.sum(axis) / self.volume
        return position

    def covariance(self, spacing: Spacing) -> Column:
        """(n, 3, 3) of the voxel centres of each object, in squared units of the spacing."""
        found = np.zeros((len(self.volume), 3, 3))
        for (i, a), (j, b) in itertools.combinations_with_replacement(enumerate("zyx"), 2):
            found[:, i, j] = found[:, j, i] = self._moment(a, b) * (spacing[i] * spacing[j])
        return found

    def _moment(self, a: str, b: str) -> Column:
        """Second moment about the centroid; see `totals.Totals.covariance` on why nothing is lost to wrapping."""
        n, sum_a, sum_b = self.volume, self.sum(a), self.sum(b)
        mean_a, mean_b = sum_a // n, sum_b // n
        about = self.sum(a + b) - mean_a * sum_b - mean_b * sum_a + n * mean_a * mean_b
        rest_a, rest_b = (sum_a - n * mean_a) / n, (sum_b - n * mean_b) / n
        moment: Column = about / n - rest_a * rest_b
        return moment


def _axis(solids: Solids, rank: int, spacing: Spacing = (1.0, 1.0, 1.0)) -> Column:
    """Rank 0 is the longest. A solid ellipsoid of half axis a has the variance a^2 / 5 along it."""
    variances = np.linalg.eigvalsh(solids.covariance(spacing))[:, 2 - rank]
    lengths: Column = np.sqrt(20 * np.maximum(variances, 0))
    return lengths


def _volume_um3(solids: Solids) -> Column:
    return solids.volume * math.prod(solids.spacing)


def _diameter(volume: Column) -> Column:
    diameter: Column = np.cbrt(6 / np.pi * volume)
    return diameter


def _surface(solids: Solids, spacing: Spacing = (1.0, 1.0, 1.0)) -> Column:
    area = np.zeros(len(solids.volume))
    for line, factor in zip(LINES, crossing_areas(spacing), strict=True):
        area += factor * solids.sum(f"crossings_{line}")
    return area


def crossing_areas(spacing: Spacing) -> tuple[float, ...]:
    """How much surface one crossing stands for, by kind of direction: z, y, x, zy, zx, yx, zyx.

    Twice the share of the sphere that a direction stands for, times the area of the cross-section that falls to each of
    its lines, which is the volume of a voxel divided by the distance of voxels along it.

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
    for line in LINES:
        # all of one kind are mirror images, hence alike: a direction and its opposite make one line
        k = steps.tolist().index([int(axis in line) for axis in "zyx"])
        factors.append(float(2 * (2 * shares[k]) * math.prod(spacing) / lengths[k]))
    return tuple(factors)


@dataclass(frozen=True, slots=True, kw_only=True)
class SolidFeature:
    """One entry of the table.

    Attributes:
        finalize: from `Solids` of n objects to (n,).
        means: what it is, for documentation and exports.
        needs_spacing: left out when the spacing is unknown.
    """

    finalize: Callable[[Solids], Column]
    means: str
    needs_spacing: bool = False


def _box(name: str, axis: int, means: str) -> SolidFeature:
    return SolidFeature(finalize=lambda s: getattr(s.partial, name)[axis], means=means)


def _um(finalize: Callable[[Solids], Column], means: str) -> SolidFeature:
    return SolidFeature(finalize=finalize, means=means, needs_spacing=True)


SOLID_FEATURES: dict[str, SolidFeature] = {
    "z": SolidFeature(finalize=lambda s: s.center("z"), means="centroid, voxel index"),
    "y": SolidFeature(finalize=lambda s: s.center("y"), means="centroid, voxel index"),
    "x": SolidFeature(finalize=lambda s: s.center("x"), means="centroid, voxel index"),
    "volume": SolidFeature(finalize=lambda s: s.volume, means="number of voxels"),
    "box_z_start": _box("starts", 0, "first section"),
    "box_y_start": _box("starts", 1, "first row"),
    "box_x_start": _box("starts", 2, "first column"),
    "box_z_stop": _box("stops", 0, "last section + 1"),
    "box_y_stop": _box("stops", 1, "last row + 1"),
    "box_x_stop": _box("stops", 2, "last column + 1"),
    "axis_major": SolidFeature(finalize=lambda s: _axis(s, 0), means="longest axis of the ellipsoid of equal moments"),
    "axis_middle": SolidFeature(finalize=lambda s: _axis(s, 1), means="its middle axis"),
    "axis_minor": SolidFeature(finalize=lambda s: _axis(s, 2), means="its shortest axis"),
    "equivalent_diameter": SolidFeature(finalize=lambda s: _diameter(s.volume), means="of the ball of equal volume"),
    "extent": SolidFeature(finalize=lambda s: s.volume / s.partial.box_size(), means="volume / volume of the box"),
    "surface": SolidFeature(finalize=_surface, means="Crofton estimate with 13 directions, holes included"),
    "euler_number": SolidFeature(
        finalize=lambda s: s.sum("euler"), means="26-connected pieces minus tunnels plus cavities"
    ),
    "touches_edge": SolidFeature(
        finalize=lambda s: s.partial.at_edge(s.config.shape), means="has a voxel at a face of the volume"
    ),
    "z_um": _um(lambda s: s.center("z") * s.spacing[0], "centroid"),
    "y_um": _um(lambda s: s.center("y") * s.spacing[1], "centroid"),
    "x_um": _um(lambda s: s.center("x") * s.spacing[2], "centroid"),
    "volume_um3": _um(_volume_um3, "volume"),
    "axis_major_um": _um(lambda s: _axis(s, 0, s.spacing), "longest axis"),
    "axis_middle_um": _um(lambda s: _axis(s, 1, s.spacing), "middle axis"),
    "axis_minor_um": _um(lambda s: _axis(s, 2, s.spacing), "shortest axis"),
    "equivalent_diameter_um": _um(lambda s: _diameter(_volume_um3(s)), "of the ball of equal volume"),
    "surface_um2": _um(lambda s: _surface(s, s.spacing), "Crofton estimate with 13 directions"),
}
"""Name of the column to how it is computed. A new feature is a function and an entry here."""

_POSITION = ("z", "y", "x", "volume", *(f"box_{axis}_{end}" for end in ("start", "stop") for axis in "zyx"))

SOLID_GROUPS: dict[str, tuple[str, ...]] = {
    "position": _POSITION,
    "geometry": tuple(name for name in SOLID_FEATURES if name not in _POSITION),
    "intensity": SOLID_INTENSITIES,
}
"""Names that stand for several features; those of position are always reported, because everything else needs them."""


def choose_solid_features(features: Sequence[str] | None, without: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of features from names and groups, in the order of the table; the position is always among them.

    Args:
        features: names of SOLID_FEATURES or SOLID_INTENSITIES, or groups; None is all.
        without: names or groups to leave out.

    Raises:
        UnknownNameError: no such feature in a volume.

    >>> choose_solid_features(["intensity"], without=["intensity_std"])[-2:]
    ('intensity_max', 'intensity_sum')
    """
    known = (*SOLID_FEATURES, *SOLID_INTENSITIES)
    names = {name: (name,) for name in known} | SOLID_GROUPS
    for name in (*(features or ()), *without):
        if name not in names:
            raise UnknownNameError.among("feature of a volume", name, names)
    wanted = {n for group in (known if features is None else features) for n in names[group]}
    wanted -= {n for group in without for n in names[group]}
    return tuple(name for name in known if name in wanted or name in _POSITION)


def solid_table(total: Partial, config: SolidConfig) -> pyarrow.Table:
    """The table of all objects, ordered by label: `label`, SOLID_FEATURES in their order, intensities by channel.

    Args:
        total: combined partials of every block of the volume; no object: a table of 0 rows with all columns.
        config: as the partials were made with.
    """
    solids = Solids(partial=total, config=config)
    columns: dict[str, Column] = {"label": total.label.astype(np.int64)}
    for name, feature in SOLID_FEATURES.items():
        if _is_wanted(name, config) and (config.spacing is not None or not feature.needs_spacing):
            columns[name] = feature.finalize(solids)
    columns.update(_intensities(total, config))
    return pyarrow.table({name: pyarrow.array(values, from_pandas=True) for name, values in columns.items()})


def _is_wanted(name: str, config: SolidConfig) -> bool:
    return config.features is None or name in config.features


def _intensities(total: Partial, config: SolidConfig) -> dict[str, Column]:
    """Columns of every channel: intensities do not know how many axes there are, so they are those of a plane."""
    sums = np.zeros((len(SUMS), len(total.label)), np.int64)
    sums[SUMS.index("area")] = total.sums[SOLID_SUMS.index("volume")]
    flat = Partial(
        label=total.label,
        sums=sums,
        starts=total.starts[1:],
        stops=total.stops[1:],
        codes=total.codes,
        lows=total.lows,
        highs=total.highs,
    )
    totals, columns = Totals(partial=flat, config=config.section), {}
    for name in (name for name in SOLID_INTENSITIES if _is_wanted(name, config)):
        rows = zip(channel_names(config.channels), FEATURES[name].finalize(totals), strict=True)
        columns.update({f"{name}_{channel}": row for channel, row in rows})
    return columns
