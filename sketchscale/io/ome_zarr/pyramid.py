"""Make the levels of a pyramid, each from the finer one, block by block; the block size does not change the result.

A pixel of the coarser level covers 2 x 2 pixels of the finer one (2 x 1, 1 x 2 or 1 x 1 at an odd border, because
sizes are rounded up) and depends on nothing else, so there is no halo and no seam.

    mean     whole numbers: the exact mean of the covered pixels, halves rounded up (towards plus infinity), computed in
             the type of the pixels without overflow; floats: the mean in float64, rounded once to their type
    nearest  the first covered pixel (top left), so ids stay ids
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sketchscale.engine.base import Json, Plan
from sketchscale.errors import InputError
from sketchscale.geometry import Box, Tile, block_shape, tile_cover
from sketchscale.io.ome_zarr.arrays import ArrayRef, open_array, read_box, write_box, write_unit

__all__ = ["METHODS", "HalveConfig", "halve_mean", "halve_nearest", "plan_level"]

Method = Literal["mean", "nearest"]


def halve_nearest(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the first of every 2 x 2 pixels of the last two axes.

    >>> halve_nearest(np.array([[1, 2, 3], [4, 5, 6]])).tolist()
    [[1, 3]]
    """
    return np.ascontiguousarray(values[..., ::2, ::2])


def halve_mean(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the mean of every 2 x 2 pixels of the last two axes, in the type of the input.

    Args:
        values: (..., y, x), any number or bool; an odd border averages the existing pixels.

    Returns:
        (..., ceil(y / 2), ceil(x / 2)). Halves of whole numbers go up: the mean of 0 and 1 is 1, of -1 and 0 is 0.

    >>> halve_mean(np.array([[1, 2, 200], [4, 4, 255]], np.uint8)).tolist()
    [[3, 228]]
    """
    if values.dtype == bool:
        return halve_mean(values.view(np.uint8)).astype(bool)
    # Repeating the last row or column keeps the mean of the existing pixels: (a + a + b + b) / 4 = (a + b) / 2.
    odd = [(0, 0)] * (values.ndim - 2) + [(0, n % 2) for n in values.shape[-2:]]
    even = np.pad(values, odd, mode="edge") if any(after for _, after in odd) else values
    corners = [even[..., dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)]
    if values.dtype.kind in "iu":  # floor((a + b + c + d + 2) / 4) without overflow: quarters first, then remainders
        kind = values.dtype.type
        quarters = sum((corner >> kind(2) for corner in corners[1:]), corners[0] >> kind(2))
        rests = sum((corner & kind(3) for corner in corners[1:]), corners[0] & kind(3))
        return np.asarray(quarters + ((rests + kind(2)) >> kind(2)))
    a, b, c, d = (corner.astype(np.float64) * 0.25 for corner in corners)
    return ((a + b) + (c + d)).astype(values.dtype)


METHODS: dict[str, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]] = {"mean": halve_mean, "nearest": halve_nearest}


@dataclass(frozen=True, slots=True, kw_only=True)
class HalveConfig:
    """Source and target array, and the method."""

    source: ArrayRef
    target: ArrayRef
    method: str


def halve_block(tile: Tile, config: HalveConfig) -> Json:
    """Write a block of the coarser level from the pixels that it covers; return its checksum."""
    finer = open_array(config.source).shape
    start = (*tile.write.start[:-2], *(2 * a for a in tile.write.start[-2:]))
    stop = (*tile.write.stop[:-2], *(2 * b for b in tile.write.stop[-2:]))
    values = read_box(config.source, Box(start, stop).clip(finer))
    return write_box(config.target, tile.write, METHODS[config.method](values))


def plan_level(source: ArrayRef, target: ArrayRef, method: Method, *, block: int = 2048) -> Plan[Tile]:
    """Return the plan that fills one level from the finer one.

    Args:
        source: complete, with every chunk.
        target: half the size in y and x, rounded up, and the same size along other axes.
        method: "mean" for intensities, "nearest" for labels.
        block: approximate side in y and x of what a task writes, in px; at least two chunks or one shard, and smaller
            for chunks that are deep along other axes.

    Raises:
        InputError: sizes or types do not match.
    """
    finer, coarser = open_array(source), open_array(target)
    expected = (*finer.shape[:-2], *(-(-n // 2) for n in finer.shape[-2:]))
    if coarser.shape != expected or coarser.dtype != finer.dtype or method not in METHODS:
        raise InputError.of(
            found=f"{target}: {coarser.shape} {coarser.dtype}, method {method!r}",
            expected=f"{expected} {finer.dtype}, {' or '.join(METHODS)}",
            fix="make the level with create_image or create_labels",
        )
    unit = write_unit(coarser)
    side = math.isqrt(block**2 // math.prod(unit[:-2]))
    shape = (*unit[:-2], *block_shape(coarser.shape[-2:], unit[-2:], side, least=1 if coarser.shards else 2))
    pixels = Box((0,) * len(shape), shape).size
    return Plan(
        stage=f"level-{target.path.replace('/', '-')}",
        fn=halve_block,
        tasks=tile_cover(coarser.shape, shape),
        config=HalveConfig(source=source, target=target, method=method),
        task_bytes=pixels * (4 * finer.dtype.itemsize + 4 * max(8, finer.dtype.itemsize) + finer.dtype.itemsize),
    )
