"""From stored fields to a stored label image, block by block, the same for every block size.

    1. outline   one task per block: read the core and its halo, follow the flow, write provisional labels (the block's
                 own ids) to a scratch array and the tables of its objects to a blob               `plan_outline`
    2. merge     in the driver: join, filter, number; one small table per block goes to a blob     `merge_blocks`
    3. relabel   one task per block: provisional labels through the table into the target          `plan_relabel`

A block reads 14 px beyond its core with the default method, 15 with crowds; so a cube of 128 reads 1.9 times its pixels
and one of 256 1.4 times. No task waits for a neighbour, each writes only its own write units, and a task run twice
writes the same bytes, so any engine, order and restart gives the same image.

`integrate` runs the same code on an array in memory, as one block: the oracle for everything else.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from sketchscale.engine.base import Engine, Json, Plan, run_plan
from sketchscale.errors import InputError
from sketchscale.geometry import Box, Tile, TileTasks, tile_cover, whole
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.fixed_point import Float16, Uint32
from sketchscale.integration.follow import follow_flow
from sketchscale.integration.merge import (
    BlockObjects,
    ObjectMap,
    Unifier,
    join_components,
    local_objects,
    number_objects,
)
from sketchscale.integration.region import region_of
from sketchscale.integration.watershed.config import WatershedConfig
from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array, open_array, read_box, write_box, write_unit
from sketchscale.io.runs.partial_results import get_arrays, put_arrays
from sketchscale.io.stores.concurrent import ahead

__all__ = [
    "BlockTask",
    "OutlineJob",
    "RelabelJob",
    "block_task",
    "check_output",
    "create_scratch",
    "integrate",
    "integrate_each",
    "integrate_stored",
    "merge_blocks",
    "plan_outline",
    "plan_relabel",
    "put_tables",
    "read_fields",
    "read_objects",
    "stored_shape",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTask:
    """One block: its place in the grid of blocks, and the box that it writes."""

    key: str
    index: tuple[int, ...]
    core: Box


def block_task(tile: Tile) -> BlockTask:
    """Return the task of a block."""
    return BlockTask(key=tile.key, index=tile.index, core=tile.write)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlineJob:
    """The input of all outline tasks: addresses, the image's shape, the rule."""

    fields: ArrayRef
    scratch: ArrayRef
    blobs: str
    shape: tuple[int, ...]
    integration: IntegrationConfig | WatershedConfig

    @property
    def walk(self) -> IntegrationConfig:
        """The rule, in a plan that follows the flow."""
        assert isinstance(self.integration, IntegrationConfig)
        return self.integration


@dataclass(frozen=True, slots=True, kw_only=True)
class RelabelJob:
    """The input of all relabel tasks."""

    scratch: ArrayRef
    blobs: str
    target: ArrayRef


def integrate(fields: npt.NDArray[np.floating], config: IntegrationConfig) -> Uint32:
    """Return the labels of fields in memory.

    Args:
        fields: (3, y, x): flow y, flow x (any length), distance in px; of a volume (4, z, y, x), flow z first. Other
            floats are rounded to float16 first, as storing them would.

    Returns:
        uint32 (y, x) or (z, y, x): 0 background, objects 1, 2, ... in raster order of their first pixel. An object cut
        by the image's border is an object like any other.

    Raises:
        InputError: another shape, integers, or flow that is not finite in the foreground.

    >>> fields = np.zeros((3, 8, 16), np.float16)
    >>> fields[2] = -5
    >>> fields[2, 2:6, 2:7] = fields[2, 2:6, 9:15] = 2
    >>> labels = integrate(fields, IntegrationConfig(threshold=-2.0, min_size=21))
    >>> labels[3]
    array([0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0], dtype=uint32)
    """
    return next(integrate_each(fields, [config]))


def integrate_each(fields: npt.NDArray[np.floating], configs: Sequence[IntegrationConfig]) -> Iterator[Uint32]:
    """Yield the labels of fields in memory by several rules; the flow is followed only once.

    Args:
        fields: as for `integrate`.
        configs: with the same threshold, steps and method.

    Raises:
        InputError: as `integrate`, or the rules differ in threshold, steps or method.

    >>> still = np.ones((3, 1, 4), np.float16) * np.array([0, 0, 1], np.float16)[:, None, None]
    >>> rules = [IntegrationConfig(threshold=0.0, min_size=size) for size in (4, 5)]
    >>> [labels.max() for labels in integrate_each(still, rules)]
    [np.uint32(1), np.uint32(0)]
    """
    walks = {(c.threshold, c.steps, c.method) for c in configs}
    if len(walks) > 1:
        raise InputError.of(found=f"rules that walk in {len(walks)} ways", expected="one", fix="integrate, for each")
    shape = _image_shape(fields.shape, fields.dtype)
    # in a region that is the whole image nothing is clipped by the links, so all rules have the same end points
    widest = max(configs, key=lambda config: config.link_radius)
    region = region_of(whole(shape), shape, widest)
    if region.core.size == 0:
        yield from (np.zeros(shape, np.uint32) for _ in configs)
        return
    points = follow_flow(np.asarray(fields, np.float16), region, widest)
    for config in configs:
        provisional, objects = local_objects(points, region, config)
        roots = join_components([objects], np.arange(objects.area.size))
        _, labels = number_objects([objects], roots, region.core.size, config)
        yield np.concatenate([np.zeros(1, np.uint32), labels])[provisional]


def _image_shape(shape: Sequence[int], dtype: np.dtype[np.generic]) -> tuple[int, ...]:
    axes = len(shape) - 1
    if axes not in (2, 3) or shape[0] != axes + 1 or dtype.kind != "f":
        raise InputError.of(
            found=f"fields of shape {tuple(shape)} and type {dtype}",
            expected="floats of shape (3, y, x) or (4, z, y, x): flow along each axis, distance",
            fix="run the prediction, or stack the channels",
        )
    return tuple(map(int, shape[1:]))


def create_scratch(scratch: ArrayRef, shape: Sequence[int], block: Sequence[int]) -> None:
    """Create the array for provisional labels: uint32, one chunk per block."""
    create_array(scratch, shape=shape, chunks=block, dtype=np.uint32)


def plan_outline(
    fields: ArrayRef, scratch: ArrayRef, blobs: str, config: IntegrationConfig, *, block: Sequence[int]
) -> Plan[BlockTask]:
    """Plan step 1: provisional labels, one task per block.

    Args:
        fields: float16 (3, y, x) or (4, z, y, x), stored.
        scratch: uint32 (y, x) or (z, y, x), made by `create_scratch` with the same block.
        blobs: address of the store for small objects; keys below `outline/` and `tables/` are used.
        block: shape of a task's core: whole write units of `scratch` and of the target of step 3.

    Returns:
        A plan; a task returns checksum, objects (its own ids), pixels (foreground) and farthest (px).

    Raises:
        InputError: an array has another shape or type, or blocks cut write units.
    """
    shape = stored_shape(fields, scratch, block)
    config.check_axes(len(shape))
    job = OutlineJob(fields=fields, scratch=scratch, blobs=blobs, shape=shape, integration=config)
    tasks = TileTasks(tile_cover(shape, block), block_task)
    memory = max((_outline_bytes(t.core, job) for t in tasks), default=0)
    return Plan(stage="outline", fn=outline_block, tasks=tasks, config=job, task_bytes=memory)


def stored_shape(fields: ArrayRef, scratch: ArrayRef, block: Sequence[int]) -> tuple[int, ...]:
    """Return the image's shape, after checking that blocks of step 1 can read the fields and write the scratch.

    Raises:
        InputError: they cannot.
    """
    array = open_array(fields)
    shape = _image_shape(array.shape, array.dtype)
    if array.dtype != np.float16:
        raise InputError.of(found=f"{fields} is {array.dtype}", expected="float16", fix="store the fields as float16")
    check_output(scratch, shape, block, ("uint32",))
    return shape


def check_output(ref: ArrayRef, shape: tuple[int, ...], block: Sequence[int], types: Sequence[str]) -> None:
    """Check that tasks of these blocks can write an array.

    Raises:
        InputError: another shape or type, or blocks cut its write units.
    """
    array = open_array(ref)
    if array.shape != shape or array.dtype not in [np.dtype(t) for t in types]:
        raise InputError.of(
            found=f"{ref} is {array.dtype} of shape {array.shape}",
            expected=f"{' or '.join(types)} of shape {shape}",
            fix="create it again for this image",
        )
    unit = write_unit(array)
    if any(b % u and b < n for b, u, n in zip(block, unit, shape, strict=True)):
        raise InputError.of(
            found=f"blocks of {tuple(block)} cut the write units of {ref}, {unit}",
            expected="whole write units per block",
            fix=f"--block as a multiple of {unit}",
        )


def _outline_bytes(core: Box, job: OutlineJob) -> int:
    """Return the memory of a task: fields, packed flow, foreground, counts, ids, ends and labels; 32 MB for codecs."""
    region, axes = region_of(core, job.shape, job.walk), len(job.shape)
    loaded, padded, window, kept = _BYTES[axes]
    pixels = loaded * region.loaded.size + padded * region.padded.size + window * region.window.size + kept * core.size
    return pixels + 32_000_000


_BYTES = {2: (12, 5, 10, 20), 3: (16, 8, 28, 24)}
"""By number of axes: bytes per pixel of the loaded box, the padded box, the window and the core."""


def read_fields(fields: ArrayRef, box: Box) -> Float16:
    """Read all channels of a box.

    Raises:
        MissingDataError: a chunk was never written.
    """
    return read_box(fields, Box((0, *box.start), (len(box.start) + 1, *box.stop)))


def outline_block(task: BlockTask, job: OutlineJob) -> Json:
    """Run one task of step 1."""
    region = region_of(task.core, job.shape, job.walk)
    points = follow_flow(read_fields(job.fields, region.loaded), region, job.walk)
    provisional, objects = local_objects(points, region, job.walk)
    checksum = write_box(job.scratch, task.core, provisional)
    put_arrays(job.blobs, f"outline/{task.key}", objects.arrays())
    return {
        "checksum": checksum,
        "objects": int(objects.area.size),
        "pixels": int(objects.area.sum()),
        "farthest": points.farthest,
    }


def merge_blocks(outline: Plan[BlockTask]) -> ObjectMap:
    """Join the components of all blocks, filter, number, and store a table of final labels per block: step 2.

    Runs in the driver, after every task of `outline`. Memory: about 170 bytes per object and the blobs of one row of
    blocks. Running it again writes the same tables.

    Raises:
        InputError: a block's blob is absent or damaged, or there are more objects than uint32 numbers.
    """
    job: OutlineJob = outline.config
    unifier, counts = Unifier(), []
    for _, row in groupby(outline.tasks, key=lambda task: task.index[0]):
        tasks = list(row)
        objects = list(read_objects(job.blobs, tasks))
        counts += [o.area.size for o in objects]
        unifier.add_row(objects, (tasks[0].core.stop[0] - job.walk.margin) * math.prod(job.shape[1:]))
    roots = join_components(read_objects(job.blobs, outline.tasks), unifier.roots())
    merged, labels = number_objects(read_objects(job.blobs, outline.tasks), roots, whole(job.shape).size, job.walk)
    put_tables(job.blobs, outline.tasks, labels, counts)
    return merged


def read_objects(blobs: str, tasks: Iterable[BlockTask]) -> Iterator[BlockObjects]:
    """Yield the tables of the blocks in order, reading a few ahead."""
    return ahead(lambda task: BlockObjects.of(get_arrays(blobs, f"outline/{task.key}")), tasks)


def put_tables(blobs: str, tasks: Iterable[BlockTask], labels: Uint32, counts: Sequence[int]) -> None:
    """Store the final labels of each block's local ids, several blocks at once.

    Args:
        labels: of the local objects of all blocks, in the order of the tasks.
        counts: number of local objects of each block.
    """

    def put(part: tuple[BlockTask, int, int]) -> None:
        task, start, stop = part
        put_arrays(blobs, f"tables/{task.key}", {"label": labels[start:stop]})

    stops = itertools.accumulate(counts)
    parts = ((task, stop - count, stop) for task, count, stop in zip(tasks, counts, stops, strict=True))
    for _ in ahead(put, parts):
        pass


def plan_relabel(outline: Plan[BlockTask], target: ArrayRef, *, stage: str = "relabel") -> Plan[BlockTask]:
    """Plan step 3: final labels, one task per block of step 1, after `merge_blocks`.

    Args:
        outline: the plan of step 1.
        target: uint32 or uint64, of the image's shape.
        stage: name in the ledger; not "relabel" where the labels are not final (see refine_plan).

    Returns:
        A plan; a task returns checksum, objects (labels present) and pixels (labelled).

    Raises:
        InputError: the target has another shape or type, or blocks cut its write units.
    """
    job: OutlineJob = outline.config
    block = outline.tasks[0].core.shape if outline.tasks else job.shape
    check_output(target, job.shape, block, ("uint32", "uint64"))
    relabel = RelabelJob(scratch=job.scratch, blobs=job.blobs, target=target)
    memory = 24 * outline.tasks[0].core.size + 32_000_000 if outline.tasks else 0  # the first task has the largest core
    return Plan(stage=stage, fn=relabel_block, tasks=outline.tasks, config=relabel, task_bytes=memory)


def relabel_block(task: BlockTask, job: RelabelJob) -> Json:
    """Run one task of step 3."""
    dtype = open_array(job.target).dtype
    table = get_arrays(job.blobs, f"tables/{task.key}")["label"]
    labels = np.concatenate([np.zeros(1, dtype), table.astype(dtype)])[read_box(job.scratch, task.core)]
    checksum = write_box(job.target, task.core, labels)
    return {
        "checksum": checksum,
        "objects": int(np.unique(table[table > 0]).size),
        "pixels": int(np.count_nonzero(labels)),
    }


def integrate_stored(
    fields: ArrayRef, target: ArrayRef, config: IntegrationConfig, engine: Engine, *, block: Sequence[int], scratch: str
) -> ObjectMap:
    """Run all three steps without a ledger, for callers that need no resume.

    Args:
        fields: float16 (3, y, x) or (4, z, y, x).
        target: uint32 or uint64, already created.
        block: whole write units of the target.
        scratch: address of a store for temporary data; the caller removes it.
    """
    provisional = ArrayRef(store=scratch, path="provisional")
    create_scratch(provisional, open_array(target).shape, block)
    outline = plan_outline(fields, provisional, scratch, config, block=block)
    run_plan(outline, engine)
    objects = merge_blocks(outline)
    run_plan(plan_relabel(outline, target), engine)
    return objects
