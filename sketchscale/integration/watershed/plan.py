"""From stored maps to a stored label image, block by block, the same for every block size.

    1. outline   one task per block: read the core and its halo, flood from the markers as far as is certain, write
                 provisional labels (the block's own ids) to a scratch array and its trees to a blob    `plan_flood`
    2. merge     in the driver: one forest, filter, number; one small table per block goes to a blob  `merge_basins`
    3. relabel   one task per block: provisional labels through the table into the target `integration.plan_relabel`

The stages are those of `integration.plan`; only the first and second step differ. A block reads 45 px beyond its core
with the default rule. `hover_labels` runs the same code on an array in memory, as one block: the oracle for everything
else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from sketchscale.engine.base import Json, Plan
from sketchscale.errors import InputError
from sketchscale.geometry import Box, TileTasks, tile_cover, whole
from sketchscale.integration.fixed_point import Uint32
from sketchscale.integration.merge import ObjectMap, number_objects
from sketchscale.integration.plan import (
    BlockTask,
    OutlineJob,
    block_task,
    put_tables,
    read_fields,
    stored_shape,
)
from sketchscale.integration.watershed.config import WatershedConfig
from sketchscale.integration.watershed.flood import Basins, flood_block
from sketchscale.integration.watershed.merge import join_basins
from sketchscale.integration.watershed.relief import relief_of, surroundings_of
from sketchscale.io.ome_zarr.arrays import ArrayRef, write_box
from sketchscale.io.runs.partial_results import get_arrays, put_arrays
from sketchscale.io.stores.concurrent import ahead

__all__ = ["hover_labels", "merge_basins", "outline_basins", "plan_flood", "rule_of"]


def hover_labels(fields: npt.NDArray[np.floating], config: WatershedConfig) -> Uint32:
    """Return the labels of maps in memory.

    Args:
        fields: (3, y, x): v and h, from -1 at an object's first row (column) to 1 at its last, m, the probability of
            foreground. Other floats are rounded to float16 first, as storing them would.

    Returns:
        uint32 (y, x): 0 background, objects 1, 2, ... in raster order of their first pixel. Foreground without any
        marker is one object per 4-connected component. An object cut by the image's border is an object like any other.

    Raises:
        InputError: another shape, integers, or v or h not finite in the foreground.

    >>> fields = np.zeros((3, 10, 20), np.float16)
    >>> fields[2] = 1
    >>> fields[0] = np.linspace(-1, 1, 10)[:, None]
    >>> fields[1] = np.tile(np.linspace(-1, 1, 10), 2)
    >>> hover_labels(fields, WatershedConfig(window=5))[5]
    array([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2],
          dtype=uint32)
    """
    if fields.ndim != 3 or fields.shape[0] != 3 or fields.dtype.kind != "f":
        raise InputError.of(
            found=f"maps of shape {fields.shape} and type {fields.dtype}",
            expected="floats of shape (3, y, x): v, h, probability of foreground",
            fix="run the prediction, or stack the three planes",
        )
    shape = (int(fields.shape[1]), int(fields.shape[2]))
    if 0 in shape:
        return np.zeros(shape, np.uint32)
    around = surroundings_of(whole(shape), shape, config)
    relief = relief_of(np.asarray(fields, np.float16), around, config)
    provisional, basins = flood_block(relief, around)
    _, labels = number_objects([basins], join_basins([basins]), provisional.size, config)
    return np.concatenate([np.zeros(1, np.uint32), labels])[provisional]


def plan_flood(
    fields: ArrayRef, scratch: ArrayRef, blobs: str, config: WatershedConfig, *, block: Sequence[int]
) -> Plan[BlockTask]:
    """Plan step 1: provisional labels, one task per block.

    Args:
        fields: float16 (3, y, x), stored: v, h, m.
        scratch: uint32 (y, x), made by `integration.plan.create_scratch` with the same block.
        blobs: address of the store for small objects; keys below `outline/` and `tables/` are used.
        block: shape (y, x) of a task's core: whole write units of `scratch` and of the target of step 3.

    Returns:
        A plan; a task returns checksum, objects (its own ids), pixels (foreground) and farthest (0: nothing is moved).

    Raises:
        InputError: an array has another shape or type, or blocks cut write units.
    """
    shape = stored_shape(fields, scratch, block)
    config.check_axes(len(shape))
    job = OutlineJob(fields=fields, scratch=scratch, blobs=blobs, shape=shape, integration=config)
    tasks = TileTasks(tile_cover(shape, block), block_task)
    memory = max((_flood_bytes(task.core, job) for task in tasks), default=0)
    return Plan(stage="outline", fn=outline_basins, tasks=tasks, config=job, task_bytes=memory)


def _flood_bytes(core: Box, job: OutlineJob) -> int:
    """Return the memory of a task: maps stored and decoded; energy, masks and holes of the seen box; then, at worst
    (all foreground, no marker), 2 edges of 8 bytes and trees of 13 bytes per pixel, and labels; 32 MB for codecs."""
    around = surroundings_of(core, job.shape, rule_of(job))
    return 10 * around.read.size + 12 * around.seen.size + 36 * core.size + 32_000_000


def rule_of(job: OutlineJob) -> WatershedConfig:
    """Return the rule of a plan that floods."""
    assert isinstance(job.integration, WatershedConfig)
    return job.integration


def outline_basins(task: BlockTask, job: OutlineJob) -> Json:
    """Run one task of step 1."""
    around = surroundings_of(task.core, job.shape, rule_of(job))
    relief = relief_of(read_fields(job.fields, around.read), around, rule_of(job))
    provisional, basins = flood_block(relief, around)
    checksum = write_box(job.scratch, task.core, provisional)
    put_arrays(job.blobs, f"outline/{task.key}", basins.arrays())
    return {
        "checksum": checksum,
        "objects": int(basins.area.size),
        "pixels": int(basins.area.sum()),
        "farthest": 0.0,
    }


def merge_basins(outline: Plan[BlockTask]) -> ObjectMap:
    """Join the trees of all blocks, filter, number, and store a table of final labels per block: step 2.

    Runs in the driver, after every task of `outline`. Memory: that of `join_basins`, and about 150 bytes per tree.
    Running it again writes the same tables.

    Raises:
        InputError: a block's blob is absent or damaged, or there are more objects than uint32 numbers.
    """
    job: OutlineJob = outline.config
    objects = join_basins(_read_basins(job.blobs, outline.tasks))
    merged, labels = number_objects(
        _read_basins(job.blobs, outline.tasks), objects, whole(job.shape).size, rule_of(job)
    )
    counts = [basins.area.size for basins in _read_basins(job.blobs, outline.tasks)]
    put_tables(job.blobs, outline.tasks, labels, counts)
    return merged


def _read_basins(blobs: str, tasks: Iterable[BlockTask]) -> Iterator[Basins]:
    """Yield the trees of the blocks in order, reading a few ahead."""
    return ahead(lambda task: Basins.of(get_arrays(blobs, f"outline/{task.key}")), tasks)
