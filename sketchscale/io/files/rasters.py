"""Read NPY, PNG and JPEG as pixel sources."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from sketchscale.geometry import Box
from sketchscale.io.files.pixels import PixelSource, check_same, describe, reading, refuse

__all__ = ["open_npy", "open_raster", "read_indices", "read_npy", "read_raster"]


def open_npy(path: str, axes: str | None) -> PixelSource:
    """Describe an array file without reading pixels; the stored axes are guessed from the shape if None.

    Raises:
        InputError: an archive, or a shape that needs named axes.
    """
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise refuse(path, "an archive of arrays", "one array (.npy)", "save the array with numpy.save")
    notes: tuple[str, ...] = ()
    if not axes:
        axes, notes = _guess_axes(path, array.shape)
    return describe(path, "npy", axes, array.shape, array.dtype, notes=notes)


def _guess_axes(path: str, shape: Sequence[int]) -> tuple[str, tuple[str, ...]]:
    """Return the axes of a plain array, with notes: (y, x), colours last if there are 3 or 4, else channels first."""
    if len(shape) == 2:
        return "yx", ()
    if len(shape) != 3:
        raise refuse(path, f"an array of {len(shape)} dimensions", "2 or 3", "name them with --axes, as in tczyx")
    if shape[-1] in (3, 4) and shape[0] > 4:
        return "yxs", ("its last axis is taken as colours; --axes zyx makes the first one sections",)
    return "cyx", ("its first axis is taken as channels; --axes zyx makes it sections, tyx time points",)


def read_npy(source: PixelSource, box: Box) -> npt.NDArray[Any]:
    """Return the pixels of a box in stored axes.

    Raises:
        InputError: the file changed since it was opened.
    """
    array = np.load(source.path, mmap_mode="r", allow_pickle=False)
    check_same(source, array.shape)
    return np.asarray(array[box.slices])


_PILLOW = threading.Lock()
_RASTER_BYTES = 2**33


@contextlib.contextmanager
def _raster(path: str) -> Iterator[PIL.Image.Image]:
    """Open an image with our limit on pixels instead of that of Pillow, which is a setting of the whole process."""
    with _PILLOW:
        limit, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
        try:
            image = PIL.Image.open(path, formats=("PNG", "JPEG"))
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = limit
    with image:
        yield image


_MODES = {"L": ("yx", "u1"), "1": ("yx", "?"), "I;16": ("yx", "u2"), "I": ("yx", "i4"), "F": ("yx", "f4"),
          "RGB": ("yxs", "u1"), "RGBA": ("yxs", "u1"), "LA": ("yxs", "u1")}  # fmt: skip


def open_raster(path: str, axes: str | None) -> PixelSource:
    """Describe a PNG or JPEG from its first bytes; the stored axes are those of its mode if None.

    Raises:
        InputError: more than 8 GiB of pixels, because such a file can only be decoded as a whole.
    """
    with _raster(path) as image:
        mode = _raster_mode(image)
        stored, dtype = _MODES[mode]
        shape = (image.height, image.width, len(PIL.Image.new(mode, (1, 1)).getbands()))[: len(stored)]
    if math.prod(shape) * np.dtype(dtype).itemsize > _RASTER_BYTES:
        raise refuse(path, f"{shape[1]} x {shape[0]} px in one block", "at most 8 GiB of pixels", "save a tiled TIFF")
    grain = (shape[0], shape[1])
    alpha = mode in ("LA", "RGBA")
    return describe(path, "raster", axes or stored, shape, dtype, alpha=alpha, grain=grain, interleaved=True)


def _raster_mode(image: PIL.Image.Image) -> str:
    """Return the mode to read an image in: palettes and unusual colour spaces become RGB."""
    if image.mode in _MODES:
        return image.mode
    if image.mode.startswith("I;16"):
        return "I;16"
    return "RGBA" if image.mode in ("PA", "RGBa") or "transparency" in image.info else "RGB"


def read_raster(source: PixelSource, box: Box) -> npt.NDArray[Any]:
    """Return the pixels of a box in stored axes; the whole file is decoded.

    Raises:
        InputError: the file changed since it was opened.
    """
    with _raster(source.path) as image:
        mode = _raster_mode(image)
        values = np.asarray(image if mode == image.mode else image.convert(mode))
    check_same(source, values.shape)
    return values[box.slices]


def read_indices(path: str) -> npt.NDArray[Any]:
    """Return a PNG as stored, with palette indices instead of colours; for label images.

    Raises:
        MissingDataError: no such file.
        InputError: it is damaged.
    """
    with reading(path), _raster(path) as image:
        return np.asarray(image)
