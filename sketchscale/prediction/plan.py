"""The two plans that write the fields.

    predict   a batch of tiles: image pixels -> network -> `tiles` scratch array, each tile its own chunk, run once
    blend     a block: every tile that covers it, in raster order, weighted -> `fields` array (3, y, x) float16

Storing raw tiles between the two costs 1.3 times the fields in scratch space and buys two things: no tile is ever run
twice for the sake of a block's border, and blending is exact at any block (see blend.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from sketchscale.engine.base import Json, Needs, Plan
from sketchscale.errors import InputError
from sketchscale.geometry import Box, Tile, tile_cover
from sketchscale.io.arrays import ArrayRef, read_box, write_box
from sketchscale.io.planes import PlaneRef, read_plane
from sketchscale.networks.kind import FieldLevels, count_fields
from sketchscale.prediction.blend import TileGrid, blend_box
from sketchscale.prediction.predictor import Recipe, load_network, pad_tile, run_tiles
from sketchscale.prediction.rescale import Zoom, fields_of_image, pixels_at_scale

__all__ = ["FIELDS", "BlendConfig", "PredictConfig", "TileBatch", "needs_of", "plan_blend", "plan_predict"]

FIELDS = 3
"""Channels of the fields: flow y, flow x, distance; or v, h, m."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TileBatch:
    """Consecutive tiles in raster order, run in one call."""

    first: int
    count: int

    @property
    def key(self) -> str:
        return f"{self.first:08d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictConfig:
    """What every predict task needs; the grid covers the scaled plane."""

    plane: PlaneRef
    channels: tuple[int, ...]
    ranges: tuple[tuple[float, float], ...]
    model: str
    model_sha256: str
    recipe: Recipe
    grid: TileGrid
    zoom: Zoom
    tiles: ArrayRef


@dataclass(frozen=True, slots=True, kw_only=True)
class BlendConfig:
    """What every blend task needs.

    Attributes:
        levels: what is counted of the fields, for the test of the image's kind; None counts nothing.
    """

    grid: TileGrid
    zoom: Zoom
    tiles: ArrayRef
    fields: ArrayRef
    levels: FieldLevels | None = None


def plan_predict(config: PredictConfig, *, activation_bytes: int = 0, weight_bytes: int = 0) -> Plan[TileBatch]:
    """Tiles through the network.

    Args:
        activation_bytes: what the network holds for one tile while it runs.
        weight_bytes: of the network's weights.
    """
    total, batch = len(config.grid), config.recipe.batch
    tasks = tuple(TileBatch(first=i, count=min(batch, total - i)) for i in range(0, total, batch))
    pixels = config.grid.tile**2
    read_bytes = 0 if config.zoom.scale == 1 else int((config.grid.tile / config.zoom.scale + 4) ** 2) * 12
    tile_bytes = pixels * (len(config.channels) * 8 + FIELDS * 6) + activation_bytes + len(config.channels) * read_bytes
    return Plan(
        stage="predict",
        fn=predict_tiles,
        tasks=tasks,
        config=config,
        task_bytes=batch * tile_bytes,
        worker_bytes=weight_bytes,
        needs=needs_of(config.recipe),
    )


def needs_of(recipe: Recipe) -> Needs:
    """Of the workers that run a network by this recipe.

    >>> needs_of(Recipe(device="cuda:1"))
    Needs(warm=True, gpu=True)
    """
    return Needs(warm=True, gpu=recipe.device.partition(":")[0] == "cuda")


def predict_tiles(task: TileBatch, config: PredictConfig) -> Json:
    """Run one batch and store it; a batch that the image's end cuts is filled with its last tile."""
    model = load_network(config.model, config.model_sha256, config.recipe)
    positions = range(task.first, task.first + task.count)
    tiles = [_read_tile(config, position) for position in positions]
    tiles += [tiles[-1]] * (config.recipe.batch - len(tiles))
    fields = run_tiles(model, config.recipe, tiles, config.ranges)[: task.count]
    if not np.isfinite(fields).all():
        raise InputError.of(
            found=f"the network's output for tile {task.first} is not finite",
            expected="finite fields",
            fix="use another model, or --precision float32",
        )
    box = Box((task.first, 0, 0, 0), (task.first + task.count, *fields.shape[1:]))
    return {"tiles": task.count, "checksum": write_box(config.tiles, box, fields)}


def _read_tile(config: PredictConfig, position: int) -> npt.NDArray[np.generic]:
    box = config.grid.box(position).clip(config.grid.shape)
    pixels = pixels_at_scale(config.zoom, box, lambda source: read_plane(config.plane, source, config.channels))
    return pad_tile(pixels, config.grid.tile)


def plan_blend(config: BlendConfig, block: tuple[int, int]) -> Plan[Tile]:
    """Blend the stored tiles into the fields array, block by block (whole write units)."""
    tasks = tile_cover(config.zoom.shape, block)
    # float32 sum and one weighted part, the float16 result, and one decoded tile; at scale, 3 parts of 1024 px each
    task_bytes = block[0] * block[1] * FIELDS * (4 + 2) + config.grid.tile**2 * FIELDS * (2 + 4 + 4)
    task_bytes += 0 if config.zoom.scale == 1 else 3 * 1026**2 * FIELDS * 4
    return Plan(stage="blend", fn=blend_tiles, tasks=tasks, config=config, task_bytes=task_bytes)


def blend_tiles(task: Tile, config: BlendConfig) -> Json:
    """Blend one block, and note the counts of its fields."""

    def read_tile(position: int) -> npt.NDArray[np.float16]:
        side = config.grid.tile
        box = Box((position, 0, 0, 0), (position + 1, FIELDS, side, side))
        return np.asarray(read_box(config.tiles, box)[0])

    blend = partial(blend_box, config.grid, read_tile=read_tile)
    blended = fields_of_image(config.zoom, task.write, blend).astype(np.float16)
    box = Box((0, *task.write.start), (FIELDS, *task.write.stop))
    counts = {} if config.levels is None else {"counts": count_fields(blended, config.levels)}
    return {**counts, "checksum": write_box(config.fields, box, blended)}
