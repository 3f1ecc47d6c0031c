"""Planes and volumes of an image by address, as tasks carry them, and functions that read their pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from sketchscale.errors import InputError
from sketchscale.geometry import Box
from sketchscale.io.ome_zarr.arrays import ArrayRef, open_array, read_box
from sketchscale.io.stores.blobs import list_blobs

__all__ = ["PixelsRef", "count_absent", "read_plane"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelsRef:
    """One plane (y, x) or volume (z, y, x) of an image with its channels, by address.

    Attributes:
        array: the array of the level.
        axes: of the array, such as "tczyx"; those of `shape` last.
        index: fixed positions of the other axes, as (("t", 0), ("z", 0)); c is never fixed.
        shape: in pixels.
        channels: names; an image without a channel axis has one.
        dtype: numpy name of the pixel type.
        spacing: um per pixel along each axis of `shape`, with unit "micrometer"; 1 and "pixel" if one is unknown.
        chunks: along each axis of `shape`.
    """

    array: ArrayRef
    axes: str
    index: tuple[tuple[str, int], ...]
    shape: tuple[int, ...]
    channels: tuple[str, ...]
    dtype: str
    spacing: tuple[float, ...]
    unit: str
    chunks: tuple[int, ...]

    @property
    def ndim(self) -> int:
        """2 for a plane, 3 for a volume."""
        return len(self.shape)

    @property
    def section(self) -> tuple[int, int]:
        """The last two axes of the shape, (y, x)."""
        return self.shape[-2], self.shape[-1]

    @property
    def spacing_um(self) -> tuple[float, ...] | None:
        """um per pixel; None when unknown."""
        return self.spacing if self.unit == "micrometer" else None


def read_plane(plane: PixelsRef, box: Box, channels: Sequence[int] | None = None) -> npt.NDArray[Any]:
    """Return the pixels of a box as (c, y, x), or (c, z, y, x) of a volume, in the type of the image.

    Args:
        plane: where to read.
        box: (y, x) or (z, y, x), inside the plane.
        channels: positions in this order; None means all.

    Returns:
        Absent chunks read as the fill value of the array, because images may be sparse; see `count_absent`.

    Raises:
        InputError: a box or channel outside the image, or a chunk that does not decode.
    """
    wanted = tuple(range(len(plane.channels))) if channels is None else tuple(channels)
    if not box.clip(plane.shape) == box or any(not 0 <= c < len(plane.channels) for c in wanted):
        raise InputError(f"{plane.array}: box {box}, channels {wanted} leave {plane.shape}, {len(plane.channels)}")
    if "c" not in plane.axes:
        return np.stack([_read(plane, box, 0)] * len(wanted)) if wanted else np.empty((0, *box.shape), plane.dtype)
    if wanted == tuple(range(len(plane.channels))):
        return _read(plane, box, slice(0, len(wanted)))
    return np.stack([_read(plane, box, c)[0] for c in wanted])


def _read(plane: PixelsRef, box: Box, channel: int | slice) -> npt.NDArray[Any]:
    """Return the box, with c in front if the array has channels; one read of the store."""
    at = dict(plane.index)
    first, last = (channel.start, channel.stop) if isinstance(channel, slice) else (channel, channel + 1)
    names = plane.axes[: len(plane.axes) - len(plane.shape)]
    leading = [(first, last) if name == "c" else (at[name], at[name] + 1) for name in names]
    full = Box(tuple(a for a, _ in leading) + box.start, tuple(b for _, b in leading) + box.stop)
    values = read_box(plane.array, full, missing="fill")
    return values.reshape((last - first, *box.shape) if "c" in plane.axes else box.shape)


def count_absent(plane: PixelsRef) -> int:
    """Return how many stored units of a plane or volume (all channels) are absent, so read as the fill value.

    One listing of the existing chunks is counted, so the cost does not grow with the number of absent ones.
    """
    array = open_array(plane.array)
    unit = tuple(array.shards or array.chunks)
    at = dict(plane.index)
    fixed = {i: at[name] // unit[i] for i, name in enumerate(plane.axes) if name in at}
    grid = [-(-n // u) for n, u in zip(array.shape, unit, strict=True)]
    wanted = [range(fixed.get(i, 0), fixed.get(i, n - 1) + 1) for i, n in enumerate(grid)]
    keys = _stored_chunks(plane.array, array)
    return math.prod(len(r) for r in wanted) - sum(
        all(i in r for i, r in zip(key, wanted, strict=True)) for key in keys
    )


def _stored_chunks(ref: ArrayRef, array: zarr.Array[Any]) -> set[tuple[int, ...]]:
    """Return the grid coordinates of the chunks (or shards) in the store; other files there are ignored."""
    probe = array.metadata.encode_chunk_key((0,) * array.ndim)
    separator = probe[len(probe) - 2] if array.ndim > 1 else "/"
    lead = probe[: len(probe) - (2 * array.ndim - 1)]
    names = (key[len(ref.path) :].lstrip("/") for key in list_blobs(ref.store, ref.path))
    parts = (name.removeprefix(lead).split(separator) for name in names if name.startswith(lead))
    return {tuple(int(p) for p in part) for part in parts if len(part) == array.ndim and all(map(str.isdigit, part))}
