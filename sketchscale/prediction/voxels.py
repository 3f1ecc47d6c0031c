"""Tile grids over any number of axes, their blending, and batches of 3-D tiles through a network.

blend.py and predictor.py for volumes and for oblong planes.

The grid of blend.py is square; a plane of 40 sections by 2000 px would be padded to 512 by 2048. Here each axis has a
tile of its own: the model's, or less where the array is shorter, in multiples of the network's stride.

    grids anchored at 0, linear ramps over the overlap, tiles added in raster order: exact at any block, as in blend.py
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from sketchscale.errors import InputError
from sketchscale.geometry import Box
from sketchscale.intensity import normalize
from sketchscale.networks.checkpoint import Model
from sketchscale.prediction.blend import axis_weights
from sketchscale.prediction.predictor import Recipe, running

__all__ = ["VoxelGrid", "blend_voxels", "fit_grid", "pad_voxels", "run_voxels"]

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class VoxelGrid:
    """The network's tiles over an array.

    Attributes:
        shape: of the array.
        tile: of a tile, per axis.
        overlap: shared by neighbouring tiles, per axis; at most half a tile, so that at most two tiles meet on an axis.
    """

    shape: tuple[int, ...]
    tile: tuple[int, ...]
    overlap: tuple[int, ...]

    def __post_init__(self) -> None:
        if any(t < 1 or not 0 <= o <= t // 2 for t, o in zip(self.tile, self.overlap, strict=True)):
            raise InputError.of(
                found=f"tiles of {self.tile} with overlap {self.overlap}",
                expected="an overlap of at most half a tile",
                fix="change --tile or --overlap",
            )

    @property
    def counts(self) -> tuple[int, ...]:
        """Tiles along each axis."""
        sizes = zip(self.shape, self.tile, self.overlap, strict=True)
        return tuple(max(1, -(-(n - o) // (t - o))) for n, t, o in sizes)

    def __len__(self) -> int:
        return math.prod(self.counts)

    def index(self, position: int) -> tuple[int, ...]:
        """Place along each axis of the tile at this place in raster order."""
        return tuple(int(i) for i in np.unravel_index(position, self.counts))

    def box(self, position: int) -> Box:
        """The tile's box; may reach past the array at the far ends."""
        sizes = zip(self.index(position), self.tile, self.overlap, strict=True)
        start = tuple(i * (t - o) for i, t, o in sizes)
        return Box(start, tuple(a + t for a, t in zip(start, self.tile, strict=True)))

    def covering(self, box: Box) -> Iterator[int]:
        """Positions of the tiles that overlap a box, in raster order."""
        sizes = zip(box.start, box.stop, self.tile, self.overlap, self.counts, strict=True)
        ranges = [range(max(0, (a - t) // (t - o) + 1), min(n, (b - 1) // (t - o) + 1)) for a, b, t, o, n in sizes]
        for index in itertools.product(*ranges):
            yield functools.reduce(lambda place, i: place * i[1] + i[0], zip(index, self.counts, strict=True), 0)


def fit_grid(shape: Sequence[int], tile: int, overlap: int, stride: int) -> VoxelGrid:
    """The grid of a model over an array; depends on nothing else.

    Args:
        tile, overlap: of the model, along every axis.
        stride: of the network; a shortened tile is a multiple of it, and at least twice as long.

    >>> fit_grid((10, 300), 128, 64, 8)
    VoxelGrid(shape=(10, 300), tile=(16, 128), overlap=(8, 64))
    """
    if tile % stride:
        raise InputError.of(found=f"a tile of {tile} px", expected=f"a multiple of {stride}", fix="change --tile")
    fitted = tuple(min(tile, stride * max(2, -(-n // stride))) for n in shape)
    return VoxelGrid(shape=tuple(shape), tile=fitted, overlap=tuple(min(overlap, t // 2) for t in fitted))


def pad_voxels(pixels: npt.NDArray[Any], tile: Sequence[int]) -> npt.NDArray[Any]:
    """Mirror the last axes of what the array's far ends cut to the size of a tile.

    >>> pad_voxels(np.array([[[1, 2]]]), (1, 5))[0, 0]
    array([1, 2, 2, 1, 1])
    """
    leading = pixels.ndim - len(tile)
    missing = [(0, 0)] * leading + [(0, t - n) for t, n in zip(tile, pixels.shape[leading:], strict=True)]
    return np.pad(pixels, missing, mode="symmetric")


def blend_voxels(grid: VoxelGrid, box: Box, read: Callable[[int, Box], npt.NDArray[np.floating]]) -> Float32:
    """The blended fields of a box.

    Args:
        box: inside the array, not empty.
        read: (position, part): fields of a part of a tile, in the tile's own coordinates; (..., *part.shape).

    Returns:
        (..., *box.shape), float32, with the leading axes that `read` gives.
    """
    result: Float32 | None = None
    for position in grid.covering(box):
        tile = grid.box(position)
        common = tile.intersect(box)
        sizes = zip(grid.index(position), grid.counts, grid.tile, grid.overlap, strict=True)
        within = common.relative_to(tile.start)
        ramps = [axis_weights(*size)[part] for size, part in zip(sizes, within.slices, strict=True)]
        part = read(position, within).astype(np.float32) * functools.reduce(np.multiply.outer, ramps)
        if result is None:
            result = np.zeros((*part.shape[: part.ndim - len(grid.shape)], *box.shape), np.float32)
        place: Any = (..., *common.relative_to(box.start).slices)
        result[place] += part
    if result is None:
        raise InputError(f"box {box} is empty or outside an array of {grid.shape}")
    return result


def run_voxels(
    model: Model, recipe: Recipe, tiles: Sequence[npt.NDArray[Any]], ranges: Sequence[tuple[float, float]]
) -> npt.NDArray[np.float16]:
    """Fields of a batch of 3-D tiles: `predictor.run_tiles` for a network of three dimensions.

    Args:
        tiles: each (c, z, y, x), the image's own values; channels that the model allows to be absent count as 0.
        ranges: (low, high) of each channel over the whole volume.

    Returns:
        (tile, 4, z, y, x) float16: flow z, y, x, distance.
    """
    absent = model.config.network.channels - len(ranges)
    voxels = torch.from_numpy(np.stack([normalize(tile, ranges) for tile in tiles]))
    voxels = functional.pad(voxels, (0, 0, 0, 0, 0, 0, 0, absent))
    with running(recipe):
        output = model.network(voxels.to(recipe.device))[:, :4].float()
        output[:, :3] /= model.config.flow_scale
        half: npt.NDArray[np.float16] = output.clamp(-60000, 60000).half().contiguous().cpu().numpy()
    return half
