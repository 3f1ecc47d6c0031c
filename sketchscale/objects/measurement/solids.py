"""What one block of a volume knows about the objects in it: exact sums, as `partials` has them for planes.

A section of a block is a plane: area, moments, box and intensities of an object in it are those of `partials`, and what
depth adds follows from them (the sum of z is z times the area). What sections do not know, surface and Euler number,
are sums over the 2 x 2 x 2 windows of the volume. A block owns the windows whose last voxel it owns, so it needs a halo
of one voxel in front along each axis; outside the volume is background:

      before         at z        h  halo, read only        window:   a b   e f
      h h h h       h h h h      .  owned                            c d   g h    owned with h
      h h h h       h . . 0      0  outside the volume

All of it is integers, minima and maxima: partials of any blocks, combined in any order, are those of the volume.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError
from sketchscale.objects.measurement.features import MeasureConfig
from sketchscale.objects.measurement.partials import Partial, combine_partials, ids_inside, partial_objects

__all__ = ["LINES", "SOLID_INTENSITIES", "SOLID_SUMS", "SolidConfig", "Spacing", "empty_solids", "partial_solids"]

Spacing = tuple[float, float, float]

LINES = ("z", "y", "x", "zy", "zx", "yx", "zyx")
"""Kinds of directions: the axes along which they lead. There are 1, 2 or 4 of a kind, the mirror images."""

SOLID_SUMS = ("volume", "z", "y", "x", "zz", "yy", "xx", "zy", "zx", "yx", *(f"crossings_{d}" for d in LINES), "euler")
"""Rows of `Partial.sums` in a volume: voxels, moments, surface crossings of lines by direction, Euler number."""

SOLID_INTENSITIES = ("intensity_mean", "intensity_std", "intensity_min", "intensity_max", "intensity_sum")
"""Names of FEATURES that a volume has for each channel."""

_NOWHERE = np.iinfo(np.int64).max


@functools.cache
def _window_table() -> npt.NDArray[np.int64]:
    """(256, 8) what each window adds to crossings and Euler number; bit 4z + 2y + x is the voxel at (z, y, x).

    A pair of voxels lies in up to four windows. The one that counts it has the pair's owned voxel last along the axes
    where the pair does not move. So for the Euler number of closed cubes (26-connected): corners minus edges plus faces
    minus cubes, each counted at its first corner, which is the middle of one window.
    """
    corners = list(itertools.product((0, 1), repeat=3))
    table = np.zeros((256, len(LINES) + 1), np.int64)
    for code in range(256):
        full = {c: bool(code >> (4 * c[0] + 2 * c[1] + c[2]) & 1) for c in corners}
        for k, line in enumerate(LINES):
            moves = [axis in line for axis in "zyx"]
            ends = [c for c in corners if all(m or at for m, at in zip(moves, c, strict=True))]
            pairs = [(c, tuple(1 - at if m else at for m, at in zip(moves, c, strict=True))) for c in ends]
            table[code, k] = sum(full[a] != full[b] for a, b in pairs) // 2
        for kept in corners:
            around = [c for c in corners if all(at or not k for k, at in zip(kept, c, strict=True))]
            table[code, -1] += (-1) ** sum(kept) * any(full[c] for c in around)
    return table


@dataclass(frozen=True, slots=True, kw_only=True)
class SolidConfig:
    """What is measured in a volume, and what the columns need besides sums.

    Attributes:
        shape: (z, y, x) of the whole volume; an object that reaches a face of it may be cut by it.
        channels, dtype, ranges: as in `MeasureConfig`, of the whole volume.
        spacing: um per voxel (z, y, x), None when unknown: then there are no columns in um.
        features: names to report, as `choose_solid_features` gives them; None for all.

    Raises:
        InputError: a spacing that is not positive, or channels without ranges where these are needed.
    """

    shape: tuple[int, int, int]
    channels: tuple[str, ...] = ()
    dtype: str = "uint8"
    ranges: tuple[tuple[float, float], ...] = ()
    spacing: Spacing | None = None
    features: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.spacing is not None and not min(self.spacing) > 0:
            raise InputError.of(found=f"spacing {self.spacing}", expected="three positive numbers", fix="correct it")
        _ = self.section

    @property
    def section(self) -> MeasureConfig:
        """The configuration of its sections: what intensities need to know."""
        return MeasureConfig(
            shape=self.shape[1:],
            channels=self.channels,
            dtype=self.dtype,
            ranges=self.ranges,
            features=SOLID_INTENSITIES,
        )


def empty_solids(channels: int) -> Partial:
    """What is known of no object, in a volume of so many channels."""
    none = np.zeros(0, np.uint64)
    return _only_windows(none, np.zeros((0, len(LINES) + 1), np.int64), channels)


def partial_solids(
    labels: npt.NDArray[Any], image: npt.NDArray[Any], origin: tuple[int, ...], config: SolidConfig
) -> Partial:
    """Measure what one block holds.

    Args:
        labels: (1 + z [+ 1], 1 + y [+ 1], 1 + x [+ 1]) ids, 0 background: the block with a halo of one voxel in front
            along each axis (zeros at the volume's faces), and zeros behind where the volume ends.
        image: (c, z, y, x) intensities of the block itself; c may be 0.
        origin: (z, y, x) of the block's first voxel in the volume.

    Returns:
        Objects that own a voxel or a window here: a `Partial` whose sums are rows as SOLID_SUMS, (18, n), and whose
        boxes have three axes, (3, n).

    Raises:
        InputError: an intensity is not finite or outside the range the coding was made for; an id of 2^63 or more.
    """
    # Two types only, and contiguous: each new one would be compiled anew.
    labels = np.ascontiguousarray(labels, np.uint64 if labels.dtype.itemsize > 4 else np.uint32)
    ids = ids_inside(labels)
    counts = np.zeros((len(ids), len(LINES) + 1), np.int64)
    _add_windows(labels, ids, _window_table(), counts)
    parts = [_only_windows(ids.astype(np.uint64), counts, len(image))]
    coding, corner = config.section.coding, (origin[1], origin[2])
    for k in range(image.shape[1]):
        section = partial_objects(labels[k + 1], image[:, k], corner, coding)
        parts.append(_with_depth(section, origin[0] + k))
    return combine_partials(parts)


def _only_windows(ids: npt.NDArray[np.uint64], counts: npt.NDArray[np.int64], channels: int) -> Partial:
    sums = np.zeros((len(SOLID_SUMS), len(ids)), np.int64)
    sums[-counts.shape[1] :] = counts.T
    return Partial(
        label=ids,
        sums=sums,
        starts=np.full((3, len(ids)), _NOWHERE, np.int64),
        stops=np.full((3, len(ids)), -1, np.int64),
        codes=np.zeros((channels, 3, len(ids)), np.int64),
        lows=np.full((channels, len(ids)), np.inf),
        highs=np.full((channels, len(ids)), -np.inf),
    )


def _with_depth(section: Partial, z: int) -> Partial:
    """The partial of the section at z, as part of a volume."""
    area, y, x, yy, xx, yx = (section.sum(name) for name in ("area", "y", "x", "yy", "xx", "yx"))
    windows = np.zeros((len(LINES) + 1, len(area)), np.int64)
    owned = area > 0
    return Partial(
        label=section.label,
        sums=np.vstack([area, z * area, y, x, z * z * area, yy, xx, z * y, z * x, yx, windows]),
        starts=np.vstack([np.where(owned, z, _NOWHERE), section.starts]),
        stops=np.vstack([np.where(owned, z + 1, -1), section.stops]),
        codes=section.codes,
        lows=section.lows,
        highs=section.highs,
    )


@numba.njit(nogil=True, cache=True)
def _add_windows(labels, ids, table, counts):  # type: ignore[no-untyped-def]
    """Crossings and Euler counts of every 2 x 2 x 2 window; windows of one label count nothing and are passed over."""
    depth, height, width = labels.shape
    window = np.zeros(8, labels.dtype)
    for z in range(1, depth):
        for y in range(1, height):
            for x in range(1, width):
                last = labels[z, y, x]
                mixed = False
                for k in range(8):
                    window[k] = labels[z - 1 + (k >> 2), y - 1 + ((k >> 1) & 1), x - 1 + (k & 1)]
                    mixed = mixed or window[k] != last
                if not mixed:
                    continue
                for k in range(8):
                    label = window[k]
                    known = label == 0
                    for earlier in range(k):
                        known = known or window[earlier] == label
                    if known:
                        continue
                    code = 0
                    for j in range(k, 8):
                        if window[j] == label:
                            code += 1 << j
                    i = np.searchsorted(ids, label)
                    for column in range(table.shape[1]):
                        counts[i, column] += table[code, column]
