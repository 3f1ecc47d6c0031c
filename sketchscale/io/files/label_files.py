"""Read label images of any origin box by box: TIFF, PNG, NPY, or a label image of a store."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

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
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.planes import PixelsRef, read_plane
from sketchscale.io.stores.addresses import is_local, split_address

__all__ = ["Truth", "open_truth"]


class Truth(Protocol):
    """A label image that is read box by box."""

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)."""
        ...

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Return the ids of a (y, x) box, 0 for background."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTruth:
    """A label image in a TIFF, PNG or NPY file; lazy if the file is tiled, mapped or in strips."""

    source: PixelSource
    shape: tuple[int, int]

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Return the ids of a (y, x) box.

        Raises:
            InputError: negative labels, or a damaged file.
        """
        if self.source.kind == "raster":
            values = _decoded_png(self.source.path, source_identity(self.source.path))[box.slices]
        else:
            lead = (0,) * (len(self.source.axes) - 2)
            full = Box(lead + box.start, (1,) * len(lead) + box.stop)
            values = read_source(self.source, full).reshape(box.shape)
        return _whole_numbers(values, self.source.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneTruth:
    """A label image in an OME-Zarr store."""

    plane: PixelsRef

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)."""
        return self.plane.section

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Return the ids of a (y, x) box; see `FileTruth.read`."""
        return _whole_numbers(read_plane(self.plane, box)[0], str(self.plane.array))


@lru_cache(maxsize=2)
def _decoded_png(path: str, identity: str) -> npt.NDArray[Any]:
    """Return a decoded PNG, cached for the next box; with another identity, a rewritten file is read again."""
    values = read_indices(path)
    values.setflags(write=False)  # shared by threads
    return values


def _whole_numbers(values: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind == "i" and values.size and values.min() < 0:
        raise InputError.of(found=f"{where}: label {values.min()}", expected="0 and above", fix="renumber the labels")
    return values


def open_truth(address: str | Path) -> Truth:
    """Open the label image behind an address, to read it lazily; picklable.

    Args:
        address: a TIFF, PNG or NPY file, or a label image of a store (`image.zarr/labels/nuclei`).

    Raises:
        MissingDataError: it does not exist.
        InputError: not one plane of whole numbers.
    """
    if file_suffix(address) in SUFFIXES and (not is_local(address) or Path(address).is_file()):
        source = open_source(str(address))
        has_palette = file_suffix(address) == ".png" and read_indices(str(address)).ndim == 2
        if not has_palette:
            _check_labels(str(address), math.prod(source.stored_shape) // math.prod(source.shape[-2:]), source.dtype)
        return FileTruth(source=source, shape=(source.shape[-2], source.shape[-1]))
    if is_local(address) and not Path(address).exists() and split_address(address)[1] == "":
        raise MissingDataError(f"{address} does not exist; expected: a label image; to fix: check the path")
    plane = open_image(address).plane()
    _check_labels(str(address), len(plane.channels), plane.dtype)
    return PlaneTruth(plane=plane)


def _check_labels(where: str, planes: int, dtype: str) -> None:
    if planes != 1 or np.dtype(dtype).kind not in "iu":
        raise InputError.of(
            found=f"{where}: {planes} planes of type {dtype}",
            expected="one plane of whole numbers, 0 for background",
            fix="export the labels as a 16 or 32 bit TIFF",
        )
