"""The square windows a classifier looks at: one an object, cut from what a block has read.

                    ┌───────────┐   side x side pixels around the object's centroid (rounded down)
                    │   ▒▒▒     │   channels: the image's, normalised, then the mask of this very object
        image ──────┼▒▒▒▓▓▓▒──  │   outside the image: 0 in every channel
                    │   ▒▒▒     │   an object larger than the window is cropped by it, and flagged
                    └───────────┘

A patch depends on the pixels of its window alone, hence not on the block that cut it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow

from sketchscale.errors import InputError
from sketchscale.geometry import Box, tile_cover
from sketchscale.intensity import normalize
from sketchscale.io.image import PlaneRef, read_plane
from sketchscale.objects.sources import LabelSource, read_labels

__all__ = ["Windows", "cut_patches", "estimate_side", "object_windows", "read_patches"]

LARGEST_SIDE = 200
"""Estimated sides stop here: one clump among the annotated objects must not make all patches huge."""

_REACH = 1024
"""Training patches whose centroids share a square of this size are cut from one read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Where n objects are looked at.

    Attributes:
        label: (n,) ids.
        corner: (n, 2) first pixel (y, x) of each window; may lie outside the image.
        center: (n, 2) pixel of the centroid; decides which block an object belongs to.
        cropped: (n,) the object does not fit into its window.
        side: pixels, of every window.
    """

    label: npt.NDArray[np.int64]
    corner: npt.NDArray[np.int64]
    center: npt.NDArray[np.int64]
    cropped: npt.NDArray[np.bool_]
    side: int

    def take(self, rows: npt.NDArray[Any]) -> Windows:
        """Some of them, by index or by mask."""
        return Windows(
            label=self.label[rows],
            corner=self.corner[rows],
            center=self.center[rows],
            cropped=self.cropped[rows],
            side=self.side,
        )


def object_windows(table: pyarrow.Table, side: int) -> Windows:
    """The windows of all objects of a feature table, in its order.

    Args:
        table: with label, y, x and the box columns.
        side: pixels, at least 1.

    Raises:
        InputError: a column is missing, or the side is not positive.
    """
    wanted = ("label", "y", "x", "box_y_start", "box_x_start", "box_y_stop", "box_x_stop")
    missing = [name for name in wanted if name not in table.column_names]
    if missing or side < 1:
        raise InputError.of(
            found=f"a table without {', '.join(missing)}" if missing else f"patches of {side} px",
            expected="the feature table of these labels, patches of at least 1 px",
            fix="measure the labels first",
        )
    columns = {name: table.column(name).to_numpy() for name in wanted}
    center = np.floor(np.stack([columns["y"], columns["x"]], axis=1)).astype(np.int64).reshape(-1, 2)
    corner = center - side // 2
    start = np.stack([columns["box_y_start"], columns["box_x_start"]], axis=1).reshape(-1, 2)
    stop = np.stack([columns["box_y_stop"], columns["box_x_stop"]], axis=1).reshape(-1, 2)
    cropped = ((start < corner) | (stop > corner + side)).any(axis=1)
    label = columns["label"].astype(np.int64)
    return Windows(label=label, corner=corner, center=center, cropped=cropped, side=side)


def estimate_side(table: pyarrow.Table, labels: Sequence[int]) -> int:
    """Side of the patches: 1.4 x the largest box side of the annotated objects, up to a multiple of 4.

    Args:
        table: feature table.
        labels: of the annotated objects.

    Returns:
        Pixels, from 8 to 200.

    Source: SVETLANA (Cazorla et al.), with a limit.
    """
    chosen = np.isin(table.column("label").to_numpy(), np.asarray(labels, np.int64))
    sides = [
        (table.column(f"box_{axis}_stop").to_numpy() - table.column(f"box_{axis}_start").to_numpy())[chosen]
        for axis in "yx"
    ]
    largest = max((int(s.max()) for s in sides if s.size), default=8)
    return int(np.clip(-(-14 * largest // 40) * 4, 8, LARGEST_SIDE))


def cut_patches(
    labels: npt.NDArray[Any],
    image: npt.NDArray[Any],
    origin: tuple[int, ...],
    windows: Windows,
    ranges: Sequence[tuple[float, float]],
) -> npt.NDArray[np.float32]:
    """Cut windows out of pixels in memory.

    Args:
        labels: (y, x) ids, image: (c, y, x) intensities: of one box, which holds the windows' part of the image.
        origin: (y, x) of the box's first pixel in the image.
        ranges: (low, high) of each channel that become 0 and 1.

    Returns:
        (n, c + 1, side, side): normalised channels, then the object's mask as 0 and 1.
    """
    side = windows.side
    patches = np.zeros((len(windows.label), len(image) + 1, side, side), np.float32)
    for patch, label, corner in zip(patches, windows.label, windows.corner, strict=True):
        start = tuple(int(c - o) for c, o in zip(corner, origin, strict=True))
        box = Box(start, tuple(a + side for a in start))
        inside = box.clip(labels.shape)
        y, x = inside.relative_to(start).slices
        patch[:-1, y, x] = normalize(image[(slice(None), *inside.slices)], ranges)
        patch[-1, y, x] = labels[inside.slices] == label
    return patches


def read_patches(
    labels: LabelSource, plane: PlaneRef, windows: Windows, ranges: Sequence[tuple[float, float]]
) -> npt.NDArray[np.float32]:
    """The patches of some objects of an image, in their order, as `cut_patches`; each region is read once.

    Raises:
        InputError: pixels cannot be read.
    """
    patches = np.zeros((len(windows.label), len(plane.channels) + 1, windows.side, windows.side), np.float32)
    for rows in _neighbours(plane.shape, windows):
        near = windows.take(rows)
        start, stop = near.corner.min(axis=0), near.corner.max(axis=0) + windows.side
        box = Box(tuple(start.tolist()), tuple(stop.tolist())).clip(plane.shape)
        patches[rows] = cut_patches(read_labels(labels, box), read_plane(plane, box), box.start, near, ranges)
    return patches


def _neighbours(shape: tuple[int, int], windows: Windows) -> Iterator[npt.NDArray[np.intp]]:
    for tile in tile_cover(shape, (_REACH, _REACH)):
        inside = (windows.center >= tile.write.start).all(axis=1) & (windows.center < tile.write.stop).all(axis=1)
        if inside.any():
            yield np.flatnonzero(inside)
