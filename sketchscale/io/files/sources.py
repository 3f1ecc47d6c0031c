"""Read ordinary image files region by region: TIFF, PNG, JPEG and NPY through one record.

A small, picklable `PixelSource` describes a file in our axes; `read_source` opens the file again, reads one box and
closes it. The cost depends on the layout of the file, which `grain` gives: the smallest region that is decoded at once.

    NPY, uncompressed TIFF      mapped into memory         grain (1, 1)
    tiled TIFF                  tiles that the box meets   grain = a tile
    striped TIFF                strips that the box meets  grain = some rows, whole width
    PNG, JPEG, one-strip TIFF   everything                 grain = the plane

Every claim of a file is checked before memory is allocated for it: sizes, segment sizes, and that all segments lie
inside the file. Any damage is an `InputError`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.errors import MissingDataError
from sketchscale.geometry import Box
from sketchscale.io.files.pixels import PixelSource, reading, refuse, stored_box, stored_order
from sketchscale.io.files.rasters import open_npy, open_raster, read_npy, read_raster
from sketchscale.io.files.rasters import read_indices as indices_of
from sketchscale.io.files.tiff import open_tiff, read_tiff
from sketchscale.io.stores.addresses import absolute_address, address_parts, is_local
from sketchscale.io.stores.local_copies import local_copy

__all__ = ["SUFFIXES", "PixelSource", "file_suffix", "open_source", "read_indices", "read_source", "source_identity"]


def open_source(path: str | Path, *, axes: str | None = None) -> PixelSource:
    """Describe an image file; no pixel is decoded.

    Args:
        path: a file with a suffix of SUFFIXES, or the address of one.
        axes: names of the stored axes if the file has none or wrong ones, as in "zyx" or "yxc".

    Raises:
        MissingDataError: no such file.
        InputError: an unknown format, a damaged file, or impossible metadata.
    """
    text = str(path)
    if is_local(text) and not Path(text).is_file():
        raise MissingDataError(f"{text} does not exist; expected: an image file; to fix: check the path")
    suffix = file_suffix(text)
    if suffix not in SUFFIXES:
        raise refuse(text, f"suffix {suffix!r}", f"one of {', '.join(SUFFIXES)}", "export it as OME-TIFF")
    with local_copy(text, look=True) as here, reading(text):
        return replace(_READERS[SUFFIXES[suffix]][0](here, axes), path=absolute_address(text))


def file_suffix(address: str | Path) -> str:
    """Return the suffix of the file at an address, in lower case.

    >>> file_suffix("a.TIF"), file_suffix("zip://b.png::ftp://host/b.zip")
    ('.tif', '.png')
    """
    return Path(address_parts(address)[1]).suffix.lower()


def read_indices(path: str) -> npt.NDArray[Any]:
    """Return a PNG as stored, with palette indices instead of colours; for label images."""
    with local_copy(path) as here:
        return indices_of(here)


def read_source(source: PixelSource, box: Box) -> npt.NDArray[Any]:
    """Return the decoded pixels of a box in `source.axes`, in native byte order.

    Raises:
        MissingDataError: the file no longer exists.
        InputError: the box is damaged, or the file changed since it was opened.
    """
    with local_copy(source.path) as here, reading(source.path, f", box {box}"):
        values = _READERS[source.kind][1](replace(source, path=here), stored_box(source, box))
    order = stored_order(source.stored)
    values = np.transpose(values, order).reshape(box.shape)
    return np.ascontiguousarray(values, dtype=np.dtype(source.dtype))


def source_identity(path: str | Path) -> str:
    """Return the SHA-256 of size, modification time, and first and last 64 KiB of a file; a rewrite changes it.

    For a remote file the time is left out, because it is that of the local copy.
    """
    with local_copy(str(path)) as here, reading(str(path)), Path(here).open("rb") as file:
        stat = Path(here).stat()
        head = file.read(65536)
        file.seek(max(0, stat.st_size - 65536))
        time = stat.st_mtime_ns if is_local(path) else ""
        text = f"{stat.st_size} {time} ".encode()
        return hashlib.sha256(text + head + file.read(65536)).hexdigest()


_Opener = Callable[[str, "str | None"], PixelSource]
_Reader = Callable[[PixelSource, Box], npt.NDArray[Any]]
_READERS: dict[str, tuple[_Opener, _Reader]] = {
    "npy": (open_npy, read_npy),
    "raster": (open_raster, read_raster),
    "tiff": (open_tiff, read_tiff),
}

SUFFIXES = {
    ".tif": "tiff",
    ".tiff": "tiff",
    ".btf": "tiff",
    ".tf8": "tiff",
    ".svs": "tiff",
    ".png": "raster",
    ".jpg": "raster",
    ".jpeg": "raster",
    ".npy": "npy",
}
"""Suffix to reader. A new format needs a pair of functions in _READERS and a line here."""
