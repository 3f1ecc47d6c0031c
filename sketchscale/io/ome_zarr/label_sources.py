"""Read labels box by box from an array of ours, a plane of an image, or a reader of another format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError
from sketchscale.geometry import Box
from sketchscale.io.ome_zarr.arrays import ArrayRef, open_array, read_box
from sketchscale.io.ome_zarr.planes import PixelsRef, read_plane

__all__ = ["ArrayLabels", "LabelReader", "LabelSource", "read_labels", "read_windows", "source_shape"]


class LabelReader(Protocol):
    """A picklable reader of labels by box, such as ground truth in a TIFF."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(y, x) or (z, y, x)."""
        ...

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Return the ids of a box, 0 for background."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayLabels:
    """Labels in memory, (y, x) or (z, y, x)."""

    pixels: npt.NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """(y, x) or (z, y, x)."""
        return self.pixels.shape

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Return the ids of a box."""
        return self.pixels[box.slices]


LabelSource = ArrayRef | PixelsRef | LabelReader
"""A (y, x) array of ours, a plane of an image, or a reader."""


def source_shape(source: LabelSource) -> tuple[int, ...]:
    """Return the shape of labels with any number of axes."""
    shape = open_array(source).shape if isinstance(source, ArrayRef) else source.shape
    return tuple(int(n) for n in shape)


def read_labels(source: LabelSource, box: Box) -> npt.NDArray[Any]:
    """Return the ids of a box in their stored type.

    Raises:
        InputError: they are not integers, or cannot be read.
    """
    if isinstance(source, ArrayRef):
        labels = read_box(source, box)
    elif isinstance(source, PixelsRef):
        labels = read_plane(source, box, [0])[0]
    else:
        labels = source.read(box)
    if labels.dtype.kind not in "iub" or (labels.dtype.kind == "i" and labels.size and labels.min() < 0):
        raise InputError.of(
            found=f"labels of type {labels.dtype} in box {box}, with fractions or negative ids",
            expected="integer ids, 0 for background",
            fix="convert the label image",
        )
    return labels


def read_windows(source: LabelSource, box: Box) -> npt.NDArray[Any]:
    """Return labels that contain all windows of 2 pixels along each axis whose last pixel lies in a box.

    Returns:
        The box with one more row of pixels in front along each axis (0 at the edge of the labels), and a row of 0
        behind at the end of the labels, so that windows across the edge belong to the last boxes.

    Raises:
        InputError: as `read_labels`.
    """
    before = [int(a == 0) for a in box.start]
    behind = [int(b == n) for b, n in zip(box.stop, source_shape(source), strict=True)]
    labels = read_labels(source, Box(tuple(max(0, a - 1) for a in box.start), box.stop))
    return np.pad(labels, list(zip(before, behind, strict=True)))
