"""From pixels to fields: the two plans that write them, and the same for an array in memory.

    predict   some tiles: image pixels -> network -> a `tiles` scratch array per view, each tile run once
    blend     a block: every tile that covers it, in raster order, weighted -> `fields` array (axes + 1, ...) float16

Storing raw tiles between the two costs 1.3 times the fields in scratch space (3.9 times for three views). In return no
tile is run twice at the border of a block, and blending is exact for any blocks (see grid.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.engine.base import Json, Needs, Plan
from sketchscale.engine.cancelling import check_cancelled
from sketchscale.errors import InputError
from sketchscale.geometry import Box, Tile, tile_cover, whole
from sketchscale.inference.backend import Backend, Recipe, load_backend, run_tiles
from sketchscale.inference.views import ReadPixels, TileTask, View, fields_of_box
from sketchscale.io.ome_zarr.arrays import ArrayRef, read_box, write_box
from sketchscale.io.ome_zarr.planes import PixelsRef, read_plane
from sketchscale.networks.kind import FieldLevels, count_fields

__all__ = ["BlendConfig", "PredictConfig", "needs_of", "plan_blend", "plan_predict", "predict_array"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictConfig:
    """The input of all predict tasks; `tiles` has an array per view."""

    image: PixelsRef
    channels: tuple[int, ...]
    ranges: tuple[tuple[float, float], ...]
    model: str
    model_sha256: str
    recipe: Recipe
    views: tuple[View, ...]
    tiles: tuple[ArrayRef, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlendConfig:
    """The input of all blend tasks.

    Attributes:
        levels: for the counts of the test of the image's kind; None counts nothing.
    """

    views: tuple[View, ...]
    tiles: tuple[ArrayRef, ...]
    fields: ArrayRef
    levels: FieldLevels | None = None


def plan_predict(config: PredictConfig, *, activation_bytes: int = 0, weight_bytes: int = 0) -> Plan[TileTask]:
    """Plan to run all tiles through the network.

    Args:
        activation_bytes: memory of the running network, per pixel of a tile.
        weight_bytes: memory of the network's weights.
    """
    batch = config.recipe.batch
    tasks = [task for number, view in enumerate(config.views) for task in view.tasks(number, batch)]
    memory = max(_task_bytes(view, len(config.channels), batch, activation_bytes) for view in config.views)
    return Plan(
        stage="predict",
        fn=predict_tiles,
        tasks=tasks,
        config=config,
        task_bytes=memory,
        worker_bytes=weight_bytes,
        needs=needs_of(config.recipe),
    )


def _task_bytes(view: View, channels: int, batch: int, activation_bytes: int) -> int:
    """Return the memory of a task: tiles as read, their fields, a batch of normalised tiles, and the activations."""
    first = view.tasks(0, batch)[0]
    count, tile = first.positions * first.planes, math.prod(view.grid.tile)
    read = 0
    if any(scale != 1 for scale in view.scales):
        read = int(math.prod(t / s + 4 for t, s in zip(view.grid.tile, view.scales, strict=True))) * 12 * channels
    fields = 6 * (len(view.axes) + 1)
    return count * (tile * (8 * channels + fields) + read) + batch * tile * (8 * channels + activation_bytes)


def needs_of(recipe: Recipe) -> Needs:
    """Return what a task needs of its worker to run a network by this recipe.

    >>> needs_of(Recipe(device="cuda:1"))
    Needs(warm=True, gpu=True)
    """
    return Needs(warm=True, gpu=recipe.device.partition(":")[0] == "cuda")


def predict_tiles(task: TileTask, config: PredictConfig) -> Json:
    """Run the tiles of one task and store them."""
    backend = load_backend(config.model, config.model_sha256, config.recipe)
    view = config.views[task.view]

    def read(box: Box) -> npt.NDArray[Any]:
        return read_plane(config.image, box, config.channels)

    fields = _run(backend, view, task, read, config.ranges)
    return {"tiles": len(fields), "checksum": write_box(config.tiles[task.view], task.box(view.tiles_shape), fields)}


def _run(
    backend: Backend, view: View, task: TileTask, read: ReadPixels, ranges: Sequence[tuple[float, float]]
) -> npt.NDArray[np.float16]:
    """Return the raw fields (place, channel, plane, *tile) of one task."""
    try:
        fields = run_tiles(backend, view.tiles(task, read), ranges)
    except InputError as error:
        raise InputError(f"tile {task.key}: {error}") from error
    return fields.reshape(task.positions, task.planes, *fields.shape[1:]).swapaxes(1, 2)


def plan_blend(config: BlendConfig, block: Sequence[int]) -> Plan[Tile]:
    """Plan to blend the stored tiles into the fields array, block by block (whole write units)."""
    views, shape = config.views, config.views[0].shape
    pixels, channels = math.prod(min(b, n) for b, n in zip(block, shape, strict=True)), len(shape) + 1
    if len(views) == 1 and views[0].zoom == 1:  # the float32 sum and the result, a weighted tile
        memory = pixels * channels * 6 + math.prod(views[0].grid.tile) * channels * 10
    else:  # also the scaled part of a view, and 32 MB for codecs
        part = min(pixels * max(math.prod(view.scales) for view in views), float(1026 ** len(shape)))
        memory = int(pixels * channels * 10 + part * channels * 14) + 32_000_000
    tasks = tile_cover(shape, block)
    return Plan(stage="blend", fn=blend_tiles, tasks=tasks, config=config, task_bytes=memory)


def blend_tiles(task: Tile, config: BlendConfig) -> Json:
    """Blend one block, and count its fields by `levels`."""

    def read(view: int, box: Box) -> npt.NDArray[np.float16]:
        return np.asarray(read_box(config.tiles[view], box)[0])

    blended = fields_of_box(config.views, task.write, read).astype(np.float16)
    box = Box((0, *task.write.start), (len(blended), *task.write.stop))
    counts = {} if config.levels is None else {"counts": count_fields(blended, config.levels)}
    return {**counts, "checksum": write_box(config.fields, box, blended)}


def predict_array(
    pixels: npt.NDArray[Any],
    backend: Backend,
    views: Sequence[View],
    ranges: Sequence[tuple[float, float]],
    *,
    where: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.float16]:
    """Return the fields of an array in memory: the same bits that the plans store for the same pixels.

    Args:
        pixels: (c, y, x) or (c, z, y, x).
        views: of the network over this image, from `views_of`.
        ranges: (low, high) of each channel.
        where: mask of the needed pixels, of the image's shape; tiles without any stay 0. None for all.

    Returns:
        (axes + 1, ...) float16.
    """
    tiles = [np.zeros(view.tiles_shape, np.float16) for view in views]
    for number, view in enumerate(views):
        for task in view.tasks(number, backend.batch):
            if where is not None and not any(
                tile.any() for tile in view.tiles(task, lambda box: where[None, *box.slices])
            ):
                continue
            check_cancelled()
            fields = _run(backend, view, task, lambda box: pixels[(slice(None), *box.slices)], ranges)
            tiles[number][task.box(view.tiles_shape).slices] = fields
    box = whole(pixels.shape[1:])
    return fields_of_box(views, box, lambda view, part: tiles[view][part.slices][0]).astype(np.float16)
