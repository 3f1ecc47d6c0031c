"""Open label images to compare, as (y, x), or as (z, y, x) if exactly one leading axis is longer than 1.

Labels have no channels, so a single long leading axis of a file (z, pages, channels) is always taken as depth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError
from sketchscale.geometry import Box
from sketchscale.io.files.label_files import open_truth
from sketchscale.io.files.sources import SUFFIXES, PixelSource, file_suffix, open_source, read_source
from sketchscale.io.ome_zarr.arrays import ArrayRef, read_box
from sketchscale.io.ome_zarr.image import Image, open_image
from sketchscale.io.ome_zarr.label_sources import LabelSource
from sketchscale.io.stores.addresses import is_local

__all__ = ["VolumeReader", "open_true_labels", "stored_labels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeReader:
    """A label volume with axes of length 1 around its depth.

    Attributes:
        source: the array or file.
        shape: (z, y, x).
        stored: shape with all axes; y and x are the last two.
    """

    source: ArrayRef | PixelSource
    shape: tuple[int, int, int]
    stored: tuple[int, ...]

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Return the ids of a (z, y, x) box."""
        leading = [(box.start[0], box.stop[0]) if n == self.shape[0] else (0, n) for n in self.stored[:-2]]
        full = Box((*(a for a, _ in leading), *box.start[1:]), (*(b for _, b in leading), *box.stop[1:]))
        values = read_box(self.source, full) if isinstance(self.source, ArrayRef) else read_source(self.source, full)
        return values.reshape(box.shape)


def stored_labels(image: Image) -> LabelSource:
    """Return level 0 of a label image of a store.

    Raises:
        InputError: several leading axes are longer than 1.
    """
    shape = image.shapes[0]
    if len(shape) == 2:
        return image.array(0)
    return image.plane() if _depth(shape) == 1 else _volume(image.array(0), shape, image.address)


def open_true_labels(address: str | Path) -> LabelSource:
    """Open a true label image lazily: anything that `io.files.label_files.open_truth` opens, and volumes.

    Args:
        address: a TIFF, PNG or NPY file, or a label image of a store (`image.zarr/labels/nuclei`).

    Raises:
        MissingDataError: it does not exist.
        InputError: not one plane or one stack of whole numbers.
    """
    here = not is_local(address) or Path(address).exists()
    if here and file_suffix(address) in SUFFIXES:
        source = open_source(address)
        if _depth(source.shape) == 1 or "s" in source.stored or np.dtype(source.dtype).kind not in "iu":
            return open_truth(address)
        return _volume(source, source.shape, str(address))
    if here:
        image = open_image(address)
        if _depth(image.shapes[0]) > 1:
            if np.dtype(image.dtype).kind not in "iu":
                wrong = f"{image.address}: labels of type {image.dtype}"
                raise InputError.of(found=wrong, expected="whole numbers", fix="convert them")
            return stored_labels(image)
    return open_truth(address)


def _depth(shape: tuple[int, ...]) -> int:
    return math.prod(shape[:-2])


def _volume(source: ArrayRef | PixelSource, shape: tuple[int, ...], where: str) -> VolumeReader:
    long = [n for n in shape[:-2] if n > 1]
    if len(long) > 1:
        raise InputError.of(
            found=f"{where}: labels of shape {shape}",
            expected="(y, x) or (z, y, x), and other axes of length 1",
            fix="evaluate one time point or channel at a time",
        )
    return VolumeReader(source=source, shape=(math.prod(long), shape[-2], shape[-1]), stored=shape)
