"""From stored fields to a stored label volume, block by block, the same for every block size.

    outline ─▶ merge ─▶ relabel      the three steps of plan.py, over (z, y, x); relabel is the same code

A block reads 15 voxels beyond its core on each side, so a cube of 128 reads 1.9 times its voxels and one of 256 1.4
times. `integrate_volume` is the same code on an array in memory, as one block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from sketchscale.engine.base import Engine, Json, Plan, run_plan
from sketchscale.errors import InputError
from sketchscale.geometry import Box, TileTasks, tile_cover, whole
from sketchscale.integration.merge import ObjectMap, Unifier, join_pieces
from sketchscale.integration.plan import (
    BlockTask,
    block_task,
    create_scratch,
    plan_relabel,
    put_tables,
    read_objects,
)
from sketchscale.integration.volume import VolumeConfig, follow_volume, volume_region
from sketchscale.integration.volume_merge import local_volume_objects, number_volume_objects
from sketchscale.io.arrays import ArrayRef, open_array, read_box, write_box, write_unit
from sketchscale.io.parts import put_arrays

__all__ = [
    "VolumeJob",
    "integrate_stored_volume",
    "integrate_volume",
    "merge_volume_blocks",
    "plan_volume_outline",
    "read_volume_fields",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeJob:
    """What all outline tasks share: addresses, the volume's shape (z, y, x), the rule."""

    fields: ArrayRef
    scratch: ArrayRef
    blobs: str
    shape: tuple[int, int, int]
    integration: VolumeConfig


def integrate_volume(fields: npt.NDArray[np.floating], config: VolumeConfig) -> npt.NDArray[np.uint32]:
    """Labels of the fields of a volume in memory.

    Args:
        fields: (4, z, y, x): flow z, y, x (any length, in voxels along each axis), distance. Other floats are rounded
            to float16 first, as storing them would.
        config: the rule; sizes are voxels.

    Returns:
        uint32 (z, y, x): 0 background, objects 1, 2, ... in raster order of their first voxel. An object cut by the
        volume's border is an object like any other.

    Raises:
        InputError: another shape, integers, or flow that is not finite in the
            foreground.

    >>> fields = np.zeros((4, 3, 6, 16), np.float16)
    >>> fields[3] = -5
    >>> fields[3, :, 1:5, 1:6] = fields[3, :, 1:5, 9:15] = 2
    >>> integrate_volume(fields, VolumeConfig(threshold=-2.0, min_size=61))[1, 2]
    array([0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0], dtype=uint32)
    """
    shape = _volume_shape(fields.shape, fields.dtype)
    region = volume_region(whole(shape), shape, config)
    if region.core.size == 0:
        return np.zeros(shape, np.uint32)
    points = follow_volume(np.asarray(fields, np.float16), region, config)
    provisional, objects = local_volume_objects(points, region, config)
    roots = join_pieces([objects], np.arange(objects.area.size), config)
    _, labels = number_volume_objects([objects], roots, region.core.size, config)
    return np.concatenate([np.zeros(1, np.uint32), labels])[provisional]


def _volume_shape(shape: Sequence[int], dtype: np.dtype[np.generic]) -> tuple[int, int, int]:
    if len(shape) != 4 or shape[0] != 4 or dtype.kind != "f":
        raise InputError.of(
            found=f"fields of shape {tuple(shape)} and type {dtype}",
            expected="floats of shape (4, z, y, x): flow z, flow y, flow x, distance",
            fix="run the prediction, or stack the four volumes",
        )
    return int(shape[1]), int(shape[2]), int(shape[3])


def plan_volume_outline(
    fields: ArrayRef, scratch: ArrayRef, blobs: str, config: VolumeConfig, *, block: Sequence[int]
) -> Plan[BlockTask]:
    """Step 1: provisional labels, one task per block; `integration.plan.plan_relabel` takes this plan as step 3.

    Args:
        fields: float16 (4, z, y, x), stored.
        scratch: uint32 (z, y, x), made by `create_scratch` with the same block.
        blobs: address of the store for small objects; keys below `outline/` and `tables/` are used.
        block: voxels (z, y, x) of a task: whole write units of `scratch`, and of the target of step 3.

    Returns:
        A plan; a task gives checksum, objects (its own ids), pixels (foreground) and farthest (voxels).

    Raises:
        InputError: an array has another shape or type, or blocks cut write units.
    """
    array = open_array(fields)
    shape = _volume_shape(array.shape, array.dtype)
    if array.dtype != np.float16:
        raise InputError.of(found=f"{fields} is {array.dtype}", expected="float16", fix="store the fields as float16")
    _check_scratch(scratch, shape, block)
    job = VolumeJob(fields=fields, scratch=scratch, blobs=blobs, shape=shape, integration=config)
    tasks = TileTasks(tile_cover(shape, block), block_task)
    memory = max((_outline_bytes(t.core, job) for t in tasks), default=0)
    return Plan(stage="outline", fn=outline_volume_block, tasks=tasks, config=job, task_bytes=memory)


def _check_scratch(scratch: ArrayRef, shape: tuple[int, int, int], block: Sequence[int]) -> None:
    array = open_array(scratch)
    unit = write_unit(array)
    fits = array.shape == shape and array.dtype == np.uint32
    if not fits or any(b % u and b < n for b, u, n in zip(block, unit, shape, strict=True)):
        raise InputError.of(
            found=f"{scratch} is {array.dtype} of shape {array.shape} in units of {unit}",
            expected=f"uint32 of shape {shape}, whole units in blocks of {tuple(block)}",
            fix="create_scratch with this volume's shape and block",
        )


def _outline_bytes(core: Box, job: VolumeJob) -> int:
    """Fields stored and decoded, words, counts and ids while they are linked, ends, labels; 32 MB for codecs."""
    region = volume_region(core, job.shape, job.integration)
    voxels = 16 * region.loaded.size + 8 * region.padded.size + 28 * region.window.size + 24 * core.size
    return voxels + 32_000_000


def read_volume_fields(fields: ArrayRef, box: Box) -> npt.NDArray[np.float16]:
    """All four channels of a box (z, y, x).

    Raises:
        MissingDataError: a chunk was never written.
    """
    return read_box(fields, Box((0, *box.start), (4, *box.stop)))


def outline_volume_block(task: BlockTask, job: VolumeJob) -> Json:
    """One task of step 1."""
    region = volume_region(task.core, job.shape, job.integration)
    points = follow_volume(read_volume_fields(job.fields, region.loaded), region, job.integration)
    provisional, objects = local_volume_objects(points, region, job.integration)
    checksum = write_box(job.scratch, task.core, provisional)
    put_arrays(job.blobs, f"outline/{task.key}", objects.arrays())
    return {
        "checksum": checksum,
        "objects": int(objects.area.size),
        "pixels": int(objects.area.sum()),
        "farthest": points.farthest,
    }


def merge_volume_blocks(outline: Plan[BlockTask]) -> ObjectMap:
    """Step 2: join the objects of all blocks, filter, number, and store a table of final labels per block.

    Runs in the driver, after every task of `outline`. Memory: about 170 bytes per object, and the shared sinks of the
    blocks of one z. Running it again writes the same tables.

    Raises:
        InputError: a block's blob is absent or damaged, or there are more objects than uint32 numbers.
    """
    job: VolumeJob = outline.config
    unifier, counts = Unifier(), []
    for _, slab in groupby(outline.tasks, key=lambda task: task.index[0]):
        tasks = list(slab)
        objects = list(read_objects(job.blobs, tasks))
        counts += [o.area.size for o in objects]
        next_window = tasks[0].core.stop[0] - job.integration.margin
        unifier.add_row(objects, next_window * job.shape[1] * job.shape[2])
    roots = join_pieces(read_objects(job.blobs, outline.tasks), unifier.roots(), job.integration)
    blocks = read_objects(job.blobs, outline.tasks)
    merged, labels = number_volume_objects(blocks, roots, whole(job.shape).size, job.integration)
    put_tables(job.blobs, outline.tasks, labels, counts)
    return merged


def integrate_stored_volume(
    fields: ArrayRef,
    target: ArrayRef,
    config: VolumeConfig,
    engine: Engine,
    *,
    block: Sequence[int],
    scratch: str,
) -> ObjectMap:
    """All three steps without a ledger, for callers that need no resume.

    Args:
        fields: float16 (4, z, y, x).
        target: uint32 or uint64 (z, y, x), created already.
        block: whole write units of the target.
        scratch: address of a store for everything temporary; the caller removes it.
    """
    provisional = ArrayRef(store=scratch, path="provisional")
    create_scratch(provisional, open_array(target).shape, block)
    outline = plan_volume_outline(fields, provisional, scratch, config, block=block)
    run_plan(outline, engine)
    objects = merge_volume_blocks(outline)
    run_plan(plan_relabel(outline, target), engine)
    return objects
