"""The network may see the image at another scale; its fields come back on the image's own grid.

    image      │▁│▂│▅│▇│▆│▃│     pixel i of the scaled plane is a mean of image pixels around its own centre, weighted
                ╲ ╱ ╲ ╱ ╲ ╱      by a triangle of half-width max(1, 1 / scale): bilinear when enlarging, without
    scaled     │ ▂ │ ▆ │ ▄ │     aliasing when reducing. Tiles, their grid and the network live in the scaled plane.
                ╱ ╲ ╱ ╲ ╱ ╲
    fields     │▁│▂│▅│▇│▆│▃│     pixel by pixel, bilinear between the blended fields; distance divided by the scale

Every coordinate and weight is a function of the pixel's own index from the image's corner, (i + 0.5) / scale - 0.5, in
float64, and the terms of a pixel's sum are added in one order. So a pixel is the same to the bit whichever tile or
block it is computed for, and labels keep the image's grid. Beyond the image's edges nothing is invented: weights that
fall outside are left out and the others share what is missing.

Source: ours; the antialiased triangle is that of Pillow's and torch's bilinear resizing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError
from sketchscale.geometry import Box, tile_cover

__all__ = ["Taps", "Zoom", "axis_taps", "fields_of_image", "pixels_at_scale"]

Float32 = npt.NDArray[np.float32]

_PART = 1024
"""Side of what is interpolated at once, px of the scaled plane: bounds the memory of a block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Zoom:
    """An image's plane and the scaled plane that the network sees.

    Attributes:
        shape: of the image's plane, (y, x).
        scale: pixels of the scaled plane per pixel of the image; 2 doubles every object.
        lengths: whether the last of the fields is a distance, which has to be scaled back, too; a probability has not.

    Raises:
        InputError: a scale outside 1/20 .. 20, on creation.

    >>> Zoom(shape=(100, 7), scale=1.5).scaled_shape
    (150, 11)
    """

    shape: tuple[int, int]
    scale: float = 1.0
    lengths: bool = True

    def __post_init__(self) -> None:
        if not 1 / 20 <= self.scale <= 20:
            raise InputError.of(
                found=f"scale {self.scale:g}", expected="1/20 to 20 network pixels per image pixel", fix="--rescale 1"
            )

    @property
    def scaled_shape(self) -> tuple[int, int]:
        """Of the scaled plane: the nearest whole number of pixels, at least one."""
        y, x = (max(1, math.floor(n * self.scale + 0.5)) for n in self.shape)
        return y, x


@dataclass(frozen=True, slots=True, kw_only=True)
class Taps:
    """One axis of an interpolation: which inputs make each of n outputs.

    Attributes:
        index: int64 (n, k), inputs from the array's start; those beyond it are moved to its edge, with weight 0.
        weight: float64 (n, k), rows sum to one.
    """

    index: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float64]

    @property
    def span(self) -> tuple[int, int]:
        """The inputs needed, half open."""
        return int(self.index.min()), int(self.index.max()) + 1


def axis_taps(start: int, stop: int, step: float, half_width: float, size: int) -> Taps:
    """Triangular weights of outputs start .. stop along an axis.

    Args:
        step: from one output's centre to the next, in inputs.
        half_width: of the triangle, in inputs; at least 1.
        size: inputs on the axis.

    Returns:
        A function of each output's own index, whatever start and stop are.

    >>> axis_taps(2, 3, 0.5, 1.0, 9).weight.round(2).tolist()
    [[0.0, 0.25, 0.75, 0.0]]
    """
    centre = (np.arange(start, stop, dtype=np.float64) + 0.5) * step - 0.5
    reach = math.ceil(half_width)
    index = np.floor(centre).astype(np.int64)[:, None] + np.arange(-reach, reach + 2)
    weight = np.maximum(0.0, 1 - np.abs(index - centre[:, None]) / half_width)
    weight[(index < 0) | (index >= size)] = 0
    return Taps(index=np.clip(index, 0, size - 1), weight=weight / weight.sum(axis=1, keepdims=True))


def _interpolate(values: npt.NDArray[Any], taps: tuple[Taps, Taps], origin: tuple[int, ...]) -> npt.NDArray[Any]:
    """(c, y, x) from `origin` on, through the taps of y and then of x; in the type of `values`, a float."""
    result = values
    for axis, (tap, first) in enumerate(zip(taps, origin, strict=True), start=1):
        shape = [1, 1, 1]
        shape[axis] = tap.index.shape[0]
        total = np.zeros((*result.shape[:axis], shape[axis], *result.shape[axis + 1 :]), values.dtype)
        for k in range(tap.index.shape[1]):
            weight = tap.weight[:, k].astype(values.dtype).reshape(shape)
            if weight.any():
                total += result.take(tap.index[:, k] - first, axis=axis) * weight
        result = total
    return result


def pixels_at_scale(zoom: Zoom, box: Box, read: Callable[[Box], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Pixels of a box of the scaled plane.

    Args:
        box: (y, x), inside the scaled plane, not empty.
        read: image pixels (c, y, x) of a box of the image.

    Returns:
        (c, y, x): as read at scale 1; else float32, or float64 for types of more than 32 significant bits.

    >>> row = np.array([[[0, 0, 4, 4]]], np.uint8)
    >>> pixels_at_scale(Zoom(shape=(1, 4), scale=2), Box((0, 2), (1, 6)), lambda b: row[(slice(None), *b.slices)])
    array([[[0., 1., 3., 4.]]], dtype=float32)
    """
    if zoom.scale == 1:
        return read(box)
    step, half_width = 1 / zoom.scale, max(1.0, 1 / zoom.scale)
    ty, tx = (axis_taps(a, b, step, half_width, n) for a, b, n in zip(box.start, box.stop, zoom.shape, strict=True))
    source = Box(*zip(ty.span, tx.span, strict=True))
    pixels = read(source)
    wide = np.float32 if pixels.dtype.itemsize <= 2 or pixels.dtype == np.float32 else np.float64
    return _interpolate(pixels.astype(wide), (ty, tx), source.start)


def fields_of_image(zoom: Zoom, box: Box, blend: Callable[[Box], Float32]) -> Float32:
    """Fields of a box of the image, from those of the scaled plane.

    Args:
        box: (y, x), inside the image.
        blend: blended fields (channel, y, x) of a box of the scaled plane; the last channel is the distance, or m.

    Returns:
        (channel, y, x) float32, distance in px of the image.
    """
    if zoom.scale == 1:
        return blend(box)
    side = max(1, int(_PART / max(1.0, zoom.scale)))
    parts = tile_cover(box.shape, (side, side))
    result: Float32 | None = None
    for part in parts:
        found = _fields_of_part(zoom, part.write.relative_to(tuple(-a for a in box.start)), blend)
        if result is None:
            result = np.empty((found.shape[0], *box.shape), np.float32)
        result[(slice(None), *part.write.slices)] = found
    if result is None:
        raise InputError(f"box {box} is empty")
    return result


def _fields_of_part(zoom: Zoom, box: Box, blend: Callable[[Box], Float32]) -> Float32:
    ty, tx = (
        axis_taps(a, b, zoom.scale, 1.0, n) for a, b, n in zip(box.start, box.stop, zoom.scaled_shape, strict=True)
    )
    needed = Box(*zip(ty.span, tx.span, strict=True))
    fields: Float32 = _interpolate(blend(needed), (ty, tx), needed.start)
    if zoom.lengths:
        fields[-1] /= np.float32(zoom.scale)
    return fields
