"""NPY, PNG and JPEG, read as pixel sources."""

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
    """Describe an array file, which is mapped, not read; axes as stored, guessed from the shape when None.

    Raises:
        InputError: an archive, or a shape whose axes have to be named.
    """
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise refuse(path, "an archive of arrays", "one array (.npy)", "save the array with numpy.save")
    stored = axes or _plain_axes(path, array.shape)
    return describe(path, "npy", stored, array.shape, array.dtype, notes=() if axes else _guessed(stored))


def _plain_axes(path: str, shape: Sequence[int]) -> str:
    """Axes of an array that does not name them: (y, x), colours last if there are 3 or 4, else channels first."""
    colored = len(shape) == 3 and shape[-1] in (3, 4) and shape[0] > 4
    known = {2: "yx", 3: "yxs" if colored else "cyx"}
    if len(shape) not in known:
        raise refuse(path, f"an array of {len(shape)} dimensions", "2 or 3", "name them with --axes, as in tczyx")
    return known[len(shape)]


def _guessed(stored: str) -> tuple[str, ...]:
    """What was assumed of an array with three axes."""
    if stored == "cyx":
        return ("its first axis is taken as channels; --axes zyx makes it sections, tyx time points",)
    return ("its last axis is taken as colours; --axes zyx makes the first one sections",) if stored == "yxs" else ()


def read_npy(source: PixelSource, box: Box) -> npt.NDArray[Any]:
    """Pixels of a box in stored axes.

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
    """An opened image. Pillow's own limit on pixels, a process-wide setting, gives way to ours."""
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
    """Describe a PNG or JPEG from its first bytes; axes as stored, those of its mode when None.

    Raises:
        InputError: more than 8 GiB of pixels, which such a file can only be decoded to at once.
    """
    with _raster(path) as image:
        mode = _raster_mode(image)
        stored, dtype = _MODES[mode]
        shape = (image.height, image.width, len(PIL.Image.new(mode, (1, 1)).getbands()))[: len(stored)]
    if math.prod(shape) * np.dtype(dtype).itemsize > _RASTER_BYTES:
        raise refuse(path, f"{shape[1]} x {shape[0]} px in one piece", "at most 8 GiB of pixels", "save a tiled TIFF")
    grain = (shape[0], shape[1])
    alpha = mode in ("LA", "RGBA")
    return describe(path, "raster", axes or stored, shape, dtype, alpha=alpha, grain=grain, interleaved=True)


def _raster_mode(image: PIL.Image.Image) -> str:
    """The mode an image is read in: palettes and unusual colour spaces become RGB."""
    if image.mode in _MODES:
        return image.mode
    if image.mode.startswith("I;16"):
        return "I;16"
    return "RGBA" if image.mode in ("PA", "RGBa") or "transparency" in image.info else "RGB"


def read_raster(source: PixelSource, box: Box) -> npt.NDArray[Any]:
    """Pixels of a box in stored axes; the whole file is decoded.

    Raises:
        InputError: the file changed since it was opened.
    """
    with _raster(source.path) as image:
        mode = _raster_mode(image)
        values = np.asarray(image if mode == image.mode else image.convert(mode))
    check_same(source, values.shape)
    return values[box.slices]


def read_indices(path: str) -> npt.NDArray[Any]:
    """A PNG as stored: palette entries as numbers, not as colours. For label images.

    Raises:
        MissingDataError: no such file.
        InputError: it is damaged.
    """
    with reading(path), _raster(path) as image:
        return np.asarray(image)
