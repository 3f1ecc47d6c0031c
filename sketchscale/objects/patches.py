"""The windows that a classifier sees, square or cubic: one per object, cut from the pixels that a block has read.

                    ┌───────────┐   side x side pixels around the object's centroid (rounded down)
                    │   ▒▒▒     │   channels: the image's, normalised, then the mask of this very object
        image ──────┼▒▒▒▓▓▓▒──  │   outside the image: its mirror image, or 0; the mask is 0
                    │   ▒▒▒     │   an object larger than the window is cropped by it, and flagged
                    └───────────┘

A patch depends on the pixels of its window alone, not on the block that cut it. In a volume the window is a cube of
voxels for any spacing: a network learns how objects look at the spacing of its images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow

from sketchscale.errors import InputError
from sketchscale.geometry import Box
from sketchscale.intensity import normalize
from sketchscale.io.ome_zarr.label_sources import LabelSource, read_labels
from sketchscale.io.ome_zarr.planes import PixelsRef, read_plane

__all__ = ["Windows", "check_axes", "cut_patches", "estimate_side", "object_windows", "read_patches", "window_columns"]

Patches = npt.NDArray[np.float32]

LARGEST_SIDE = {2: 200, 3: 64}
"""Largest estimated side by number of axes, so that one annotated clump does not make all patches huge."""

_REACH = {2: 1024, 3: 128}
"""Training patches with centroids in one square or cube of this size are cut from one read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """The windows of n objects.

    Attributes:
        label: (n,) ids.
        corner: (n, 2) first pixel (y, x) of each window, (n, 3) first voxel (z, y, x); may lie outside the image.
        center: as corner, pixel of the centroid; decides to which block an object belongs.
        cropped: (n,) the object does not fit into its window.
        side: of every window, px.
    """

    label: npt.NDArray[np.int64]
    corner: npt.NDArray[np.int64]
    center: npt.NDArray[np.int64]
    cropped: npt.NDArray[np.bool_]
    side: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one window: `side` along every axis."""
        return (self.side,) * int(self.corner.shape[1])

    def take(self, rows: npt.NDArray[Any]) -> Windows:
        """Return some of the windows, by index or by mask."""
        arrays = {name: getattr(self, name)[rows] for name in ("label", "corner", "center", "cropped")}
        return Windows(**arrays, side=self.side)


def object_windows(table: pyarrow.Table, side: int) -> Windows:
    """Return the windows of all objects of a feature table, in its order.

    Args:
        table: with label, y, x and the box columns; with z and its box columns the windows are cubes.
        side: px, at least 1.

    Raises:
        InputError: a column is missing, or the side is not positive.
    """
    axes = _axes(table)
    missing = [name for name in window_columns(axes) if name not in table.column_names]
    if missing or side < 1:
        raise InputError.of(
            found=f"a table without {', '.join(missing)}" if missing else f"patches of {side} px",
            expected="the feature table of these labels, patches of at least 1 px",
            fix="measure the labels first",
        )
    center = np.floor(_stacked(table, axes)).astype(np.int64)
    corner = center - side // 2
    start = _stacked(table, [f"box_{axis}_start" for axis in axes])
    stop = _stacked(table, [f"box_{axis}_stop" for axis in axes])
    cropped = ((start < corner) | (stop > corner + side)).any(axis=1)
    label = table.column("label").to_numpy().astype(np.int64)
    return Windows(label=label, corner=corner, center=center, cropped=cropped, side=side)


def window_columns(axes: str) -> tuple[str, ...]:
    """Return the columns that `object_windows` reads of objects with these axes."""
    return ("label", *axes, *(f"box_{axis}_{end}" for axis in axes for end in ("start", "stop")))


def _axes(table: pyarrow.Table) -> str:
    return "zyx" if "z" in table.column_names else "yx"


def _stacked(table: pyarrow.Table, names: Sequence[str]) -> npt.NDArray[Any]:
    """Return columns side by side, (n, columns)."""
    return np.stack([table.column(name).to_numpy() for name in names], axis=1)


def estimate_side(table: pyarrow.Table, labels: Sequence[int]) -> int:
    """Return the side of the patches: 1.4 x the largest box side of annotated objects, rounded up to a multiple of 4.

    Args:
        table: feature table of a plane or a volume.
        labels: of the annotated objects.

    Returns:
        px, from 8 to 200, in a volume to 64.

    Source: SVETLANA (Cazorla et al.), with a limit.
    """
    chosen = np.isin(table.column("label").to_numpy(), np.asarray(labels, np.int64))
    sides = [
        (table.column(f"box_{axis}_stop").to_numpy() - table.column(f"box_{axis}_start").to_numpy())[chosen]
        for axis in _axes(table)
    ]
    largest = max((int(s.max()) for s in sides if s.size), default=8)
    return int(np.clip(-(-14 * largest // 40) * 4, 8, LARGEST_SIDE[len(sides)]))


def check_axes(windows: Windows, shape: tuple[int, ...]) -> None:
    """Raise InputError if the windows and an image of this shape differ in their number of axes."""
    if len(windows.shape) != len(shape):
        raise InputError.of(
            found=f"objects with {len(windows.shape)} coordinates in an image of {shape}",
            expected="the table of labels of this image",
            fix="measure the labels again with --overwrite",
        )


def cut_patches(
    labels: npt.NDArray[Any],
    image: npt.NDArray[Any],
    origin: tuple[int, ...],
    windows: Windows,
    ranges: Sequence[tuple[float, float]],
    *,
    mirror: bool = False,
) -> Patches:
    """Cut windows out of pixels in memory.

    Args:
        labels: ([z,] y, x) ids, image: (c, [z,] y, x) intensities, both of a box that holds the windows as far as they
            lie in the image.
        origin: ([z,] y, x) of the box's first pixel in the image.
        ranges: (low, high) of each channel that become 0 and 1.
        mirror: beyond the border of the image, show its mirror image, which begins with the border pixel, instead of 0.

    Returns:
        (n, c + 1, [side,] side, side): normalised channels, then the object's mask as 0 and 1.
    """
    patches = np.zeros((len(windows.label), len(image) + 1, *windows.shape), np.float32)
    for patch, label, corner in zip(patches, windows.label, windows.corner, strict=True):
        start = tuple(int(c - o) for c, o in zip(corner, origin, strict=True))
        inside = Box(start, tuple(a + windows.side for a in start)).clip(labels.shape)
        place = inside.relative_to(start).slices
        seen = normalize(image[(slice(None), *inside.slices)], ranges)
        if mirror and inside.shape != windows.shape:
            beyond = [(p.start, windows.side - p.stop) for p in place]
            patch[:-1] = np.pad(seen, [(0, 0), *beyond], mode="symmetric")
        else:
            patch[(slice(-1), *place)] = seen
        patch[(-1, *place)] = labels[inside.slices] == label
    return patches


def read_patches(
    labels: LabelSource,
    plane: PixelsRef,
    windows: Windows,
    ranges: Sequence[tuple[float, float]],
    *,
    mirror: bool = False,
) -> Patches:
    """Return the patches of some objects of an image as `cut_patches` does; each region is read once.

    Raises:
        InputError: pixels cannot be read, or the windows are those of a volume and the image is a plane.
    """
    check_axes(windows, plane.shape)
    patches = np.zeros((len(windows.label), len(plane.channels) + 1, *windows.shape), np.float32)
    cells = windows.center // _REACH[len(windows.shape)]
    _, cell = np.unique(cells, axis=0, return_inverse=True)
    order = np.argsort(cell, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(cell[order])) + 1) if len(order) else ():
        near = windows.take(rows)
        start, stop = near.corner.min(axis=0), near.corner.max(axis=0) + windows.side
        box = Box(tuple(start.tolist()), tuple(stop.tolist())).clip(plane.shape)
        pixels = read_labels(labels, box), read_plane(plane, box)
        patches[rows] = cut_patches(*pixels, box.start, near, ranges, mirror=mirror)
    return patches
