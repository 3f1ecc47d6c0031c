"""Fields of a volume (4, z, y, x): flow z, y, x and distance, by a network of three dimensions or of two.

A network with dim 3 runs on one grid of 3-D tiles. A network with dim 2 runs on every plane of three directions, and
the three answers are averaged, each component over the two directions that see it, the distance over all three:

    yx  (one plane per z)   flow y, flow x, distance ─┐    flow z = (zx + zy) / 2      distance = (yx + zx + zy) / 3
    zx  (one plane per y)   flow z, flow x, distance ─┼─▶  flow y = (yx + zy) / 2
    zy  (one plane per x)   flow z, flow y, distance ─┘    flow x = (yx + zx) / 2

**Anisotropy.** With sections `ratio` times as far apart as pixels, zx and zy planes are stretched along z by that ratio
before the network sees them, and its fields are brought back, by the taps of rescale.py: functions of the index from
the volume's corner, never of a tile. Flow along z is divided by the ratio there, because integration walks in voxels
(integration/volume.py). The distance stays in px of y and x. A network with dim 3 is taken to know its voxels.

    predict   a slab: one tile place of 16 consecutive planes (one decoding of the input for all of them), or a batch of
              3-D tiles -> `tiles` scratch arrays, each run once
    blend     a block: the tiles that cover it in raster order -> `fields` array (4, z, y, x) float16

The output depends on volume, model, recipe and ratio, not on blocks: grids, slabs and batches start at the corner.

Source: averaging over orthogonal planes as in Cellpose (Stringer et al. 2021); fixed grids and taps: ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from sketchscale.engine.base import Json, Plan
from sketchscale.errors import InputError
from sketchscale.geometry import Box, Tile, tile_cover
from sketchscale.io.arrays import ArrayRef, read_box, write_box
from sketchscale.io.planes import VolumeRef, read_plane
from sketchscale.networks.checkpoint import Model
from sketchscale.prediction.plan import TileBatch, needs_of
from sketchscale.prediction.predictor import Recipe, load_network, run_tiles
from sketchscale.prediction.rescale import Taps, axis_taps
from sketchscale.prediction.voxels import VoxelGrid, blend_voxels, fit_grid, pad_voxels, run_voxels

__all__ = [
    "FIELDS",
    "SLAB",
    "Grids",
    "PlaneStack",
    "SlabTask",
    "VolumeBlendConfig",
    "VolumePredictConfig",
    "blend_volume",
    "plan_tasks",
    "plan_volume_blend",
    "plan_volume_predict",
    "run_part",
    "tiles_shape",
    "volume_grids",
    "write_box_of",
]

Float32 = npt.NDArray[np.float32]

FIELDS = 4
"""Channels of the fields: flow z, flow y, flow x, distance."""

SLAB = 16
"""Planes of a task: a chunk of the image that is 16 deep across the planes is decoded once for all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneStack:
    """All planes of one direction.

    Attributes:
        kind: the axes of a plane, in its order.
        shape: of the volume, (z, y, x).
        ratio: spacing z / spacing y.
        grid: of tiles over one plane, with z as the network sees it.
    """

    kind: Literal["yx", "zx", "zy"]
    shape: tuple[int, int, int]
    ratio: float
    grid: VoxelGrid

    @property
    def axes(self) -> tuple[int, int]:
        """Of a plane, as axes of the volume."""
        return "zyx".index(self.kind[0]), "zyx".index(self.kind[1])

    @property
    def across(self) -> int:
        """The axis along which the planes follow one another."""
        return 3 - sum(self.axes)

    @property
    def stretched(self) -> bool:
        """Whether planes are resampled along z."""
        return self.kind[0] == "z" and self.ratio != 1

    def box(self, planes: tuple[int, int], first: tuple[int, int], second: tuple[int, int]) -> Box:
        """The volume's box of a range of planes and of both axes of a plane."""
        ranges = {self.across: planes, self.axes[0]: first, self.axes[1]: second}
        return Box(tuple(ranges[a][0] for a in range(3)), tuple(ranges[a][1] for a in range(3)))


Grids = VoxelGrid | tuple[PlaneStack, ...]
"""How a network runs over a volume: one grid of 3-D tiles, or three stacks of planes."""


def volume_grids(shape: tuple[int, int, int], model: Model, *, tile: int, overlap: int, ratio: float = 1.0) -> Grids:
    """The tiles of a model over a volume.

    Args:
        shape: (z, y, x).
        tile, overlap: of the model, along each axis.
        ratio: spacing z / spacing y; without meaning for a network of three dimensions.

    Raises:
        InputError: a ratio outside 1/20 .. 20, or a tile that does not fit the network.
    """
    stride = model.declares.stride
    if model.config.network.dim == 3:
        return fit_grid(shape, tile, overlap, stride)
    if not 1 / 20 <= ratio <= 20:
        raise InputError.of(
            found=f"sections {ratio:g} times as far apart as pixels", expected="1/20 to 20", fix="--anisotropy"
        )
    z, y, x = max(1, math.floor(shape[0] * ratio + 0.5)), shape[1], shape[2]
    planes: tuple[tuple[Literal["yx", "zx", "zy"], tuple[int, int]], ...]
    planes = (("yx", (y, x)), ("zx", (z, x)), ("zy", (z, y)))
    return tuple(
        PlaneStack(kind=kind, shape=shape, ratio=ratio, grid=fit_grid(plane, tile, overlap, stride))
        for kind, plane in planes
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SlabTask:
    """One tile place of consecutive planes of one direction."""

    stack: int
    kind: str
    position: int
    first: int
    count: int

    @property
    def key(self) -> str:
        return f"{self.kind}-{self.position:06d}-{self.first:06d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumePredictConfig:
    """What every predict task needs; `tiles` has an array per stack, or one for 3-D tiles."""

    volume: VolumeRef
    channels: tuple[int, ...]
    ranges: tuple[tuple[float, float], ...]
    model: str
    model_sha256: str
    recipe: Recipe
    grids: Grids
    tiles: tuple[ArrayRef, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeBlendConfig:
    """What every blend task needs."""

    grids: Grids
    tiles: tuple[ArrayRef, ...]
    fields: ArrayRef


def tiles_shape(grids: Grids) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """Shape and chunks of each scratch array of raw tiles.

    3-D tiles: (tile, 4, z, y, x). Planes: (tile place, 3, plane, first axis, second axis), a slab of planes to a chunk.
    """
    if isinstance(grids, VoxelGrid):
        chunks = (1, FIELDS, *(min(64, t) for t in grids.tile))
        return (((len(grids), FIELDS, *grids.tile), chunks),)
    return tuple(
        (
            (len(s.grid), 3, s.shape[s.across], *s.grid.tile),
            (1, 3, min(SLAB, s.shape[s.across]), *(min(128, t) for t in s.grid.tile)),
        )
        for s in grids
    )


# ---- predict


def plan_volume_predict(
    config: VolumePredictConfig, *, activation_bytes: int = 0, weight_bytes: int = 0
) -> Plan[SlabTask | TileBatch]:
    """Slabs of planes, or batches of 3-D tiles, through the network.

    Args:
        activation_bytes: what the network holds for a pixel or voxel while it runs.
        weight_bytes: of the network's weights.
    """
    grids, batch, depth = config.grids, config.recipe.batch, 8 * len(config.channels)
    if isinstance(grids, VoxelGrid):
        task_bytes = batch * math.prod(grids.tile) * (depth + FIELDS * 6 + activation_bytes)
    else:
        largest = max(math.prod(s.grid.tile) for s in grids)
        task_bytes = largest * (SLAB * (2 * depth + 3 * 6) + batch * (depth + activation_bytes))
    return Plan(
        stage="predict",
        fn=predict_part,
        tasks=plan_tasks(grids, batch),
        config=config,
        task_bytes=task_bytes + 32_000_000,
        worker_bytes=weight_bytes,
        needs=needs_of(config.recipe),
    )


def plan_tasks(grids: Grids, batch: int) -> list[SlabTask | TileBatch]:
    """Slabs of all three directions, or batches of 3-D tiles, in order."""
    if isinstance(grids, VoxelGrid):
        return [TileBatch(first=i, count=min(batch, len(grids) - i)) for i in range(0, len(grids), batch)]
    return [task for number, stack in enumerate(grids) for task in _slabs(number, stack)]


def _slabs(number: int, stack: PlaneStack) -> list[SlabTask]:
    planes = stack.shape[stack.across]
    return [
        SlabTask(stack=number, kind=stack.kind, position=position, first=first, count=min(SLAB, planes - first))
        for position in range(len(stack.grid))
        for first in range(0, planes, SLAB)
    ]


def predict_part(task: SlabTask | TileBatch, config: VolumePredictConfig) -> Json:
    """Run one slab or batch and store it."""
    model = load_network(config.model, config.model_sha256, config.recipe)

    def read(box: Box) -> npt.NDArray[Any]:
        return read_plane(config.volume, box, config.channels)

    fields = run_part(task, config.grids, model, config.recipe, config.ranges, read)
    if not np.isfinite(fields).all():
        raise InputError.of(
            found=f"the network's output for tile {task.key} is not finite",
            expected="finite fields",
            fix="use another model, or --precision float32",
        )
    array, box = write_box_of(task, fields.shape)
    return {"tiles": task.count, "checksum": write_box(config.tiles[array], box, fields.reshape(box.shape))}


def write_box_of(task: SlabTask | TileBatch, shape: Sequence[int]) -> tuple[int, Box]:
    """Which array of `tiles_shape`, and which box of it, a task's fields of this shape fill."""
    if isinstance(task, TileBatch):
        return 0, Box((task.first, 0, 0, 0, 0), (task.first + task.count, *shape[1:]))
    start = (task.position, 0, task.first, 0, 0)
    return task.stack, Box(start, (task.position + 1, 3, task.first + task.count, *shape[2:]))


def run_part(
    task: SlabTask | TileBatch,
    grids: Grids,
    model: Model,
    recipe: Recipe,
    ranges: Sequence[tuple[float, float]],
    read: Callable[[Box], npt.NDArray[Any]],
) -> npt.NDArray[np.float16]:
    """Raw fields of one task.

    Args:
        read: pixels (c, z, y, x) of a box.

    Returns:
        (3, plane, first axis, second axis) of a slab; (tile, 4, z, y, x) of a batch.
    """
    if isinstance(task, SlabTask):
        stack = cast(tuple[PlaneStack, ...], grids)[task.stack]
        planes = list(pad_voxels(_slab_pixels(stack, task, read), stack.grid.tile))
        parts = [run_tiles(model, recipe, batch, ranges) for batch in _batches(planes, recipe.batch)]
        return np.concatenate(parts)[: task.count].swapaxes(0, 1)
    grid = cast(VoxelGrid, grids)
    boxes = (grid.box(task.first + i).clip(grid.shape) for i in range(task.count))
    tiles = [pad_voxels(read(box), grid.tile) for box in boxes]
    return run_voxels(model, recipe, next(_batches(tiles, recipe.batch)), ranges)[: task.count]


def _batches(tiles: list[npt.NDArray[Any]], size: int) -> Any:
    """Tiles in groups of `size`; the last tile fills the last group."""
    for first in range(0, len(tiles), size):
        group = tiles[first : first + size]
        yield group + [group[-1]] * (size - len(group))


def _slab_pixels(stack: PlaneStack, task: SlabTask, read: Callable[[Box], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """(plane, c, first axis, second axis) of a slab, stretched, cut at the volume's ends."""
    tile = stack.grid.box(task.position).clip(stack.grid.shape)
    first, second = zip(tile.start, tile.stop, strict=True)
    planes = (task.first, task.first + task.count)
    if not stack.stretched:
        return _by_planes(read(stack.box(planes, first, second)), stack)
    taps = axis_taps(*first, 1 / stack.ratio, max(1.0, 1 / stack.ratio), stack.shape[0])
    pixels = _by_planes(read(stack.box(planes, taps.span, second)), stack)
    wide = np.float32 if pixels.dtype.itemsize <= 2 or pixels.dtype == np.float32 else np.float64
    return _along_first_axis(pixels.astype(wide), taps)


def _by_planes(pixels: npt.NDArray[Any], stack: PlaneStack) -> npt.NDArray[Any]:
    """(c, z, y, x) to (plane, c, first axis, second axis)."""
    return pixels.transpose(1 + stack.across, 0, *(1 + a for a in stack.axes))


def _along_first_axis(values: npt.NDArray[Any], taps: Taps) -> npt.NDArray[Any]:
    """(..., first axis from the taps' span on, second axis), interpolated; terms are added in one order."""
    total = np.zeros((*values.shape[:-2], taps.index.shape[0], values.shape[-1]), values.dtype)
    for k in range(taps.index.shape[1]):
        weight = taps.weight[:, k].astype(values.dtype)[:, None]
        if weight.any():
            total += values.take(taps.index[:, k] - taps.span[0], axis=-2) * weight
    return total


# ---- blend


def plan_volume_blend(config: VolumeBlendConfig, shape: Sequence[int], block: Sequence[int]) -> Plan[Tile]:
    """Blend the stored tiles into the fields array, block by block (whole write units).

    Args:
        shape: of the volume, (z, y, x).
        block: voxels (z, y, x) of a task.
    """
    voxels = math.prod(min(b, n) for b, n in zip(block, shape, strict=True))
    ratio = 1.0 if isinstance(config.grids, VoxelGrid) else max(1.0, config.grids[0].ratio)
    # sum and result; per direction the stretched fields, a weighted part, its float16 and the fields brought back
    task_bytes = int(voxels * (FIELDS * 6 + 3 * (10 * ratio + 4))) + 32_000_000
    tasks = tile_cover(shape, block)
    return Plan(stage="blend", fn=blend_block, tasks=tasks, config=config, task_bytes=task_bytes)


def blend_block(task: Tile, config: VolumeBlendConfig) -> Json:
    """Blend one block."""

    def read(array: int, box: Box) -> npt.NDArray[np.float16]:
        return np.asarray(read_box(config.tiles[array], box)[0])

    blended = blend_volume(config.grids, task.write, read).astype(np.float16)
    box = Box((0, *task.write.start), (FIELDS, *task.write.stop))
    return {"checksum": write_box(config.fields, box, blended)}


def blend_volume(grids: Grids, box: Box, read: Callable[[int, Box], npt.NDArray[np.floating]]) -> Float32:
    """Fields of a box.

    Args:
        box: (z, y, x), inside the volume, not empty.
        read: (array, box): raw fields of one tile place, from arrays laid out as `tiles_shape` says, first axis left
            out.

    Returns:
        (4, z, y, x) float32.
    """
    if isinstance(grids, VoxelGrid):

        def tile(position: int, part: Box) -> npt.NDArray[np.floating]:
            return read(0, Box((position, 0, *part.start), (position + 1, FIELDS, *part.stop)))

        return blend_voxels(grids, box, tile)
    total = np.zeros((FIELDS, *box.shape), np.float32)
    for number, stack in enumerate(grids):
        fields = _stack_fields(stack, box, partial(read, number))
        for channel, target in enumerate((*stack.axes, 3)):
            total[target] += fields[channel]
    total[:3] /= np.float32(2)
    total[3] /= np.float32(3)
    return total


def _stack_fields(stack: PlaneStack, box: Box, read: Callable[[Box], npt.NDArray[np.floating]]) -> Float32:
    """What one direction says of a box: (3, z, y, x), along the two axes of its planes, and the distance."""
    planes = box.start[stack.across], box.stop[stack.across]
    sides = [(box.start[a], box.stop[a]) for a in stack.axes]
    taps = None
    if stack.stretched:
        taps = axis_taps(*sides[0], stack.ratio, 1.0, stack.grid.shape[0])
        sides[0] = taps.span

    def tile(position: int, part: Box) -> npt.NDArray[np.floating]:
        return read(Box((position, 0, planes[0], *part.start), (position + 1, 3, planes[1], *part.stop)))

    fields = blend_voxels(stack.grid, Box(*zip(*sides, strict=True)), tile)
    if taps is not None:
        fields = _along_first_axis(fields, taps)
        fields[0] /= np.float32(stack.ratio)
    order = (stack.across, *stack.axes)
    return fields.transpose(0, *(1 + order.index(a) for a in range(3)))
