"""Label images of any origin, read as they are, box by box: TIFF, PNG, NPY, or a label image of a store."""

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
    def shape(self) -> tuple[int, int]: ...

    def read(self, box: Box) -> npt.NDArray[Any]:
        """(y, x) whole numbers, 0 background."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTruth:
    """A label image in a TIFF, PNG or NPY file; lazy where the file is tiled, mapped or in strips."""

    source: PixelSource
    shape: tuple[int, int]

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Labels of a (y, x) box.

        Raises:
            InputError: negative labels, or a damaged file.
        """
        if self.source.kind == "raster":
            values = _indices(self.source.path, source_identity(self.source.path))[box.slices]
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
        return self.plane.section

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Labels of a (y, x) box; see `FileTruth.read`."""
        return _whole_numbers(read_plane(self.plane, box)[0], str(self.plane.array))


@lru_cache(maxsize=2)
def _indices(path: str, identity: str) -> npt.NDArray[Any]:
    """A decoded PNG, kept for the next box; the identity is there so that a rewritten file is read again."""
    values = read_indices(path)
    values.setflags(write=False)  # threads share it
    return values


def _whole_numbers(values: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind == "i" and values.size and values.min() < 0:
        raise InputError.of(found=f"{where}: label {values.min()}", expected="0 and above", fix="renumber the labels")
    return values


def open_truth(address: str | Path) -> Truth:
    """A label image behind an address, read lazily.

    Args:
        address: a TIFF, PNG or NPY file, or a label image of a store (`image.zarr/labels/nuclei`).

    Returns:
        Something with `.shape` (y, x) and `.read(box)`; picklable.

    Raises:
        MissingDataError: nothing is there.
        InputError: not one plane of whole numbers.
    """
    if file_suffix(address) in SUFFIXES and (not is_local(address) or Path(address).is_file()):
        return _file_truth(str(address))
    if is_local(address) and not Path(address).exists() and split_address(address)[1] == "":
        raise MissingDataError(f"{address} does not exist; expected: a label image; to fix: check the path")
    plane = open_image(address).plane()
    _check_labels(str(address), len(plane.channels), plane.dtype)
    return PlaneTruth(plane=plane)


def _file_truth(path: str) -> FileTruth:
    source = open_source(path)
    if source.kind == "raster" and file_suffix(path) == ".png" and _has_palette(path):
        return FileTruth(source=source, shape=_plane_shape(source))
    _check_labels(path, math.prod(source.stored_shape) // math.prod(source.shape[-2:]), source.dtype)
    return FileTruth(source=source, shape=_plane_shape(source))


def _has_palette(path: str) -> bool:
    return read_indices(path).ndim == 2


def _plane_shape(source: PixelSource) -> tuple[int, int]:
    return (source.shape[-2], source.shape[-1])


def _check_labels(where: str, planes: int, dtype: str) -> None:
    if planes != 1 or np.dtype(dtype).kind not in "iu":
        raise InputError.of(
            found=f"{where}: {planes} planes of type {dtype}",
            expected="one plane of whole numbers, 0 for background",
            fix="export the labels as a 16 or 32 bit TIFF",
        )
