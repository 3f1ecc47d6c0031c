"""Where labels come from: an array of ours, a plane of an image, or any reader of another format."""

from __future__ import annotations

from typing import Any, Protocol

import numpy.typing as npt

from sketchscale.errors import InputError
from sketchscale.geometry import Box
from sketchscale.io.arrays import ArrayRef, open_array, read_box
from sketchscale.io.planes import PlaneRef, read_plane

__all__ = ["LabelReader", "LabelSource", "label_shape", "read_labels", "source_shape"]


class LabelReader(Protocol):
    """Anything picklable that gives labels by box, such as a true label image that is a TIFF."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def read(self, box: Box) -> npt.NDArray[Any]: ...


LabelSource = ArrayRef | PlaneRef | LabelReader
"""Where labels come from: a (y, x) array of ours, a plane of an image, or a reader."""


def source_shape(source: LabelSource) -> tuple[int, ...]:
    """The shape of labels, of any number of axes."""
    shape = open_array(source).shape if isinstance(source, ArrayRef) else source.shape
    return tuple(int(n) for n in shape)


def label_shape(source: LabelSource) -> tuple[int, int]:
    """(y, x) of labels.

    Raises:
        InputError: they are not two-dimensional.
    """
    shape = source_shape(source)
    if len(shape) != 2:
        raise InputError.of(found=f"labels of shape {shape}", expected="(y, x)", fix="choose one plane")
    return shape[0], shape[1]


def read_labels(source: LabelSource, box: Box) -> npt.NDArray[Any]:
    """Ids of a box, in their own type.

    Raises:
        InputError: they are not integers, or cannot be read.
    """
    if isinstance(source, ArrayRef):
        labels = read_box(source, box)
    elif isinstance(source, PlaneRef):
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
