"""Choose how labels are stored, and in which blocks they are made: chunks, shards, whole write units."""

from __future__ import annotations

from collections.abc import Sequence

from sketchscale.config import Execution
from sketchscale.errors import InputError
from sketchscale.geometry import block_shape
from sketchscale.io.ome_zarr.arrays import open_array
from sketchscale.io.ome_zarr.image import Image
from sketchscale.io.ome_zarr.planes import PixelsRef

__all__ = ["label_block", "label_chunks", "label_shards"]

_CHUNKS = {2: (64, 1024, 512), 3: (8, 128, 64)}
"""By number of axes: smallest and largest side of chunks that is kept from the image, and the default, px."""


def label_chunks(pixels: PixelsRef) -> tuple[int, ...]:
    """Return chunks of labels: the image's, where they are of a sensible size."""
    least, most, usual = _CHUNKS[len(pixels.shape)]
    return tuple(min(c if least <= c <= most else usual, n) for c, n in zip(pixels.chunks, pixels.shape, strict=True))


def label_shards(
    image: Image, pixels: PixelsRef, chunks: tuple[int, ...], wanted: int | None
) -> tuple[int, ...] | None:
    """Return shards of labels: the given ones, else a plane's where the labels have its chunks; cut to the image.

    Raises:
        InputError: shards that are no whole chunks, or in OME-Zarr 0.4.
    """
    if wanted is None:
        given = open_array(pixels.array).shards
        if given is None or chunks != pixels.chunks or len(chunks) == 3:
            return None
        sides = given[-len(chunks) :]
    else:
        sides = (wanted,) * len(chunks)
    version = image.metadata.version
    if version == "0.4" or any(side % c for side, c in zip(sides, chunks, strict=True)):
        raise InputError.of(
            found=f"shards of {' x '.join(map(str, sides))} px for chunks of {' x '.join(map(str, chunks))} px in "
            f"OME-Zarr {version}",
            expected="whole chunks, OME-Zarr 0.5",
            fix="another --shard, or none",
        )
    whole = (-(-n // c) * c for n, c in zip(pixels.shape, chunks, strict=True))
    return tuple(map(min, sides, whole))


def label_block(
    shape: Sequence[int], chunks: tuple[int, ...], shards: tuple[int, ...] | None, execution: Execution
) -> tuple[int, ...]:
    """Return whole write units: at least two chunks along each axis, or one shard; cubes and squares of equal size."""
    side = execution.block if len(shape) == 2 else max(1, round(execution.block ** (2 / 3)))
    return block_shape(shape, shards or chunks, side, least=2 if shards is None else 1)
