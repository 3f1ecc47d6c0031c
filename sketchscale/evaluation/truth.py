"""Open label images to compare, as (y, x), or as (z, y, x) if exactly one leading axis is longer than 1.

They are TIFF, PNG or NPY files, or label images of a store, and are read box by box. Labels have no channels, so a
single long leading axis of a file (z, pages, channels) is always taken as depth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError, MissingDataError
from sketchscale.geometry import Box
from sketchscale.io.files.sources import (
    SUFFIXES,
    PixelSource,
    file_suffix,
    open_source,
    read_indices,
    read_source,
    source_identity,
)
from sketchscale.io.ome_zarr.arrays import ArrayRef, read_box
from sketchscale.io.ome_zarr.image import Image, open_image
from sketchscale.io.ome_zarr.label_sources import LabelSource
from sketchscale.io.stores.addresses import is_local, split_address

__all__ = ["StoredLabels", "open_true_labels", "stored_labels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLabels:
    """Labels of an array or a file whose other axes have length 1; lazy if a file is tiled, mapped or in strips.

    Attributes:
        source: the array or file.
        shape: (y, x) or (z, y, x).
        stored: shape with all axes; y and x are the last two.
    """

    source: ArrayRef | PixelSource
    shape: tuple[int, ...]
    stored: tuple[int, ...]

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Return the ids of a box of that shape.

        Raises:
            InputError: negative labels, or a damaged file.
        """
        depth = (box.start[0], box.stop[0]) if len(self.shape) == 3 else (0, 1)
        leading = [depth if n == self.shape[0] and n > 1 else (0, 1) for n in self.stored[:-2]]
        full = Box((*(a for a, _ in leading), *box.start[-2:]), (*(b for _, b in leading), *box.stop[-2:]))
        if isinstance(self.source, ArrayRef):
            return read_box(self.source, full).reshape(box.shape)
        if self.source.kind == "raster":
            values = _decoded(self.source.path, source_identity(self.source.path))[box.slices]
        else:
            values = read_source(self.source, full).reshape(box.shape)
        if values.dtype.kind == "i" and values.size and values.min() < 0:
            wrong = f"{self.source.path}: label {values.min()}"
            raise InputError.of(found=wrong, expected="0 and above", fix="renumber the labels")
        return values


@lru_cache(maxsize=2)
def _decoded(path: str, identity: str) -> npt.NDArray[Any]:
    """Return a decoded PNG, cached for the next box; with another identity, a rewritten file is read again."""
    values = read_indices(path)
    values.setflags(write=False)  # shared by threads
    return values


def stored_labels(image: Image) -> LabelSource:
    """Return level 0 of a label image of a store.

    Raises:
        InputError: several leading axes are longer than 1.
    """
    shape = image.shapes[0]
    if len(shape) == 2:
        return image.array(0)
    return image.plane() if math.prod(shape[:-2]) == 1 else _volume(image.array(0), shape, image.address)


def open_true_labels(address: str | Path) -> LabelSource:
    """Open a true label image, to read it lazily.

    Args:
        address: a TIFF, PNG or NPY file, or a label image of a store (`image.zarr/labels/nuclei`).

    Raises:
        MissingDataError: it does not exist.
        InputError: not one plane or one stack of whole numbers.
    """
    if file_suffix(address) in SUFFIXES and (not is_local(address) or Path(address).is_file()):
        source = open_source(address)
        if file_suffix(address) == ".png" and read_indices(str(address)).ndim == 2:  # also with a palette of colours
            return StoredLabels(source=source, shape=source.shape[-2:], stored=source.shape)
        planes = math.prod(source.stored_shape) // math.prod(source.shape[-2:])
        if planes > 1 and "s" not in source.stored and np.dtype(source.dtype).kind in "iu":
            return _volume(source, source.shape, str(address))
        _check_labels(str(address), planes, source.dtype)
        return StoredLabels(source=source, shape=source.shape[-2:], stored=source.shape)
    if is_local(address) and not Path(address).exists() and split_address(address)[1] == "":
        raise MissingDataError(f"{address} does not exist; expected: a label image; to fix: check the path")
    image = open_image(address)
    _check_labels(image.address, 1, image.dtype)
    return stored_labels(image) if math.prod(image.shapes[0][:-2]) > 1 else image.plane()


def _check_labels(where: str, planes: int, dtype: str) -> None:
    if planes != 1 or np.dtype(dtype).kind not in "iu":
        raise InputError.of(
            found=f"{where}: {f'{planes} planes' if planes != 1 else 'labels'} of type {dtype}",
            expected="whole numbers in one plane or stack, 0 for background",
            fix="export the labels as a 16 or 32 bit TIFF",
        )


def _volume(source: ArrayRef | PixelSource, shape: tuple[int, ...], where: str) -> StoredLabels:
    long = [n for n in shape[:-2] if n > 1]
    if len(long) > 1:
        raise InputError.of(
            found=f"{where}: labels of shape {shape}",
            expected="(y, x) or (z, y, x), and other axes of length 1",
            fix="evaluate one time point or channel at a time",
        )
    return StoredLabels(source=source, shape=(math.prod(long), shape[-2], shape[-1]), stored=shape)
