"""Where labels come from: an array of ours, a plane of an image, or any reader of another format."""

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
    """Anything picklable that gives labels by box, such as a true label image that is a TIFF."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(y, x) or (z, y, x)."""
        ...

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Whole numbers of a box of that shape, 0 background."""
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
        """Ids of a box."""
        return self.pixels[box.slices]


LabelSource = ArrayRef | PixelsRef | LabelReader
"""Where labels come from: a (y, x) array of ours, a plane of an image, or a reader."""


def source_shape(source: LabelSource) -> tuple[int, ...]:
    """The shape of labels, of any number of axes."""
    shape = open_array(source).shape if isinstance(source, ArrayRef) else source.shape
    return tuple(int(n) for n in shape)


def read_labels(source: LabelSource, box: Box) -> npt.NDArray[Any]:
    """Ids of a box, in their own type.

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
    """Labels of a box with all windows of 2 pixels along each axis that it owns: those whose last pixel lies in it.

    Args:
        box: in the labels.

    Returns:
        One more row of pixels in front along each axis (0 at the edge of the labels), and a row of 0 behind where the
        labels end, so that windows which stick out belong to the last boxes.

    Raises:
        InputError: as `read_labels`.
    """
    before = [int(a == 0) for a in box.start]
    behind = [int(b == n) for b, n in zip(box.stop, source_shape(source), strict=True)]
    labels = read_labels(source, Box(tuple(max(0, a - 1) for a in box.start), box.stop))
    return np.pad(labels, list(zip(before, behind, strict=True)))
