"""Refinement of stored labels, block by block, the same for every block size; refine.py has the rules.

    1. join      one task per block: merged labels into a scratch array      `plan_relabel` of integration.plan
    2. inspect   one task per block, for the objects with their first pixel in it (its own objects): each is cropped by
                 its own box, however far it reaches; flow errors to a blob, hole pixels to a blob per block they lie in
    3. number    in the driver: drop, number without gaps                                            `number_refined`
    4. finish    one task per block: provisional labels through the new table, and the holes, into the target

    block A owns object 7   ┌──────────┬──────────┐   A inspects all of 7, and writes its hole pixels for A and for B;
    (its first pixel)       │   7777777│777       │   B's task finds them by name: no task writes another's pixels.
                            │   7    ··│·  7      │
                            │   7777777│7777      │
                            └────A─────┴────B─────┘

A block reads its own objects within 256 px of it (32 in a volume) at once; an object that reaches farther is read by
itself, so memory is bounded by the block and by the largest object. Every step run twice writes the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sketchscale.engine.base import Json, Plan
from sketchscale.geometry import Box, tile_cover
from sketchscale.integration.fixed_point import Int64
from sketchscale.integration.merge import ObjectMap
from sketchscale.integration.plan import BlockTask, OutlineJob, RelabelJob, plan_relabel, read_fields
from sketchscale.integration.refine import MARGIN, RefineConfig, crop_of, final_numbers, keeps, refine_object
from sketchscale.io.ome_zarr.arrays import ArrayRef, open_array, read_box, write_box
from sketchscale.io.runs.partial_results import get_arrays, put_arrays
from sketchscale.io.stores.blobs import list_blobs

__all__ = ["Refined", "number_refined", "plan_finish", "plan_inspect"]


def _near(shape: Sequence[int]) -> int:
    """Return how far beyond the block its objects are read at once, px."""
    return 256 if len(shape) == 2 else 32


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectJob:
    """The input of all inspect tasks; `merged` holds the labels of step 1, `block` is the grid's."""

    fields: ArrayRef
    merged: ArrayRef
    blobs: str
    shape: tuple[int, ...]
    block: tuple[int, ...]
    refine: RefineConfig

    def owner(self, pixel: Int64) -> Int64:
        """Return the block, as a place in raster order, of each pixel given by its raster index."""
        counts = tuple(-(-n // b) for n, b in zip(self.shape, self.block, strict=True))
        at = np.unravel_index(pixel, self.shape)
        blocks = tuple(i // b for i, b in zip(at, self.block, strict=True))
        return np.ravel_multi_index(blocks, counts).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refined:
    """Numbers of objects after refinement: kept, and dropped for their flow error."""

    count: int
    dropped: int


def plan_inspect(
    outline: Plan[BlockTask], objects: ObjectMap | None, merged: ArrayRef, config: RefineConfig
) -> Plan[BlockTask]:
    """Plan step 2, after `merge_blocks` and step 1; stores for every block a small blob with its own objects.

    Args:
        outline: the plan that made the provisional labels.
        objects: from `merge_blocks`; None where they are not known yet, for a plan that is only shown.
        merged: the target of step 1.

    Returns:
        A plan; a task returns objects (owned) and filled (px of holes). Its memory grows with the largest object.
    """
    job: OutlineJob = outline.config
    block = outline.tasks[0].core.shape if outline.tasks else job.shape
    inspect = InspectJob(
        fields=job.fields, merged=merged, blobs=job.blobs, shape=job.shape, block=tuple(block), refine=config
    )
    near, largest = max((task.core.grow(_near(job.shape)).size for task in outline.tasks), default=0), 0
    if objects is not None:
        axes = len(job.shape)
        sides = objects.box[:, axes:] - objects.box[:, :axes] + 2 * MARGIN
        largest = int(np.prod(sides, axis=1).max(initial=0))
        owner = inspect.owner(objects.first)
        order = np.argsort(owner, kind="stable")
        bounds = np.searchsorted(owner[order], np.arange(len(outline.tasks) + 1))
        for task, start, stop in zip(outline.tasks, bounds[:-1], bounds[1:], strict=True):
            own = order[start:stop]
            put_arrays(job.blobs, f"owned/{task.key}", {"label": own + 1, "box": objects.box[own]})
    memory = 16 * near + 100 * largest + 32_000_000
    return Plan(stage="inspect", fn=inspect_block, tasks=outline.tasks, config=inspect, task_bytes=memory)


def inspect_block(task: BlockTask, job: InspectJob) -> Json:
    """Run one task of step 2."""
    owned = get_arrays(job.blobs, f"owned/{task.key}")
    axes = len(job.shape)
    crops = [crop_of(Box(tuple(row[:axes]), tuple(row[axes:])), job.shape) for row in owned["box"].tolist()]
    errors = np.zeros(len(crops), np.float64)
    pixels, labels = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for region, members in _regions(task.core.grow(_near(job.shape)), crops):
        merged, flow = read_box(job.merged, region), read_fields(job.fields, region)[:-1]
        for i in members:
            here = crops[i].relative_to(region.start).slices
            label = int(owned["label"][i])
            holes, errors[i] = refine_object(merged[here], flow[(slice(None), *here)], label, job.refine)
            if holes is not None and keeps(errors[i], job.refine):
                at = np.argwhere(holes) + crops[i].start
                pixels.append(np.ravel_multi_index(tuple(at.T), job.shape).astype(np.int64))
                labels.append(np.full(len(at), label, np.int64))
    put_arrays(job.blobs, f"error/{task.key}", {"error": errors})
    pixel, owner = np.concatenate(pixels), np.concatenate(labels)
    place, tiles = job.owner(pixel), tile_cover(job.shape, job.block)
    for block in np.unique(place).tolist():
        inside = place == block
        put_arrays(job.blobs, f"holes/{tiles[block].key}/{task.key}", {"pixel": pixel[inside], "label": owner[inside]})
    return {"objects": len(crops), "filled": int(pixel.size)}


def _regions(reach: Box, crops: Sequence[Box]) -> Iterator[tuple[Box, list[int]]]:
    """Yield boxes to read and the objects in each: all within reach at once, each far one alone."""
    near = [i for i, crop in enumerate(crops) if reach.contains(crop)]
    if near:
        starts, stops = zip(*[(crops[i].start, crops[i].stop) for i in near], strict=True)
        yield Box(tuple(map(min, zip(*starts, strict=True))), tuple(map(max, zip(*stops, strict=True)))), near
    for i, crop in enumerate(crops):
        if not reach.contains(crop):
            yield crop, [i]


def number_refined(inspect: Plan[BlockTask], objects: ObjectMap) -> Refined:
    """Number the kept objects and store tables of final labels for the blocks: step 3, in the driver.

    Runs after every task of `inspect`; memory: 5 bytes per object. Objects keep their order, because a filled hole
    never holds an object's first pixel.
    """
    job: InspectJob = inspect.config
    kept = np.ones(objects.count + 1, np.bool_)
    for task in inspect.tasks:
        errors = get_arrays(job.blobs, f"error/{task.key}")["error"]
        kept[get_arrays(job.blobs, f"owned/{task.key}")["label"]] = [keeps(e, job.refine) for e in errors]
    numbers = final_numbers(kept)
    for task in inspect.tasks:
        table = get_arrays(job.blobs, f"tables/{task.key}")["label"]
        owned = get_arrays(job.blobs, f"owned/{task.key}")["label"]
        put_arrays(job.blobs, f"final/{task.key}", {"label": numbers[table]})
        put_arrays(job.blobs, f"numbers/{task.key}", {"label": owned, "final": numbers[owned]})
    count = int(numbers.max(initial=0))
    return Refined(count=count, dropped=objects.count - count)


def plan_finish(outline: Plan[BlockTask], target: ArrayRef) -> Plan[BlockTask]:
    """Plan step 4; its stage is "relabel", as without refinement: the stage that writes the labels.

    Args:
        target: uint32 or uint64, of the image's shape.

    Returns:
        A plan; a task returns checksum, objects (labels present) and pixels (labelled).

    Raises:
        InputError: the target has another shape or type, or blocks cut its write units.
    """
    memory = 40 * outline.tasks[0].core.size + 32_000_000 if outline.tasks else 0  # the first task has the largest core
    return replace(plan_relabel(outline, target), fn=finish_block, task_bytes=memory)


def finish_block(task: BlockTask, job: RelabelJob) -> Json:
    """Run one task of step 4."""
    array = open_array(job.target)
    table = get_arrays(job.blobs, f"final/{task.key}")["label"].astype(array.dtype)
    labels = np.concatenate([np.zeros(1, array.dtype), table])[read_box(job.scratch, task.core)]
    for key in list_blobs(job.blobs, f"holes/{task.key}"):
        holes = get_arrays(job.blobs, key)
        numbers = get_arrays(job.blobs, f"numbers/{key.rpartition('/')[2]}")
        at = np.unravel_index(holes["pixel"], array.shape)
        number = numbers["final"][np.searchsorted(numbers["label"], holes["label"])]
        labels[tuple(i - a for i, a in zip(at, task.core.start, strict=True))] = number
    return {
        "checksum": write_box(job.target, task.core, labels),
        "objects": int(np.unique(labels[labels > 0]).size),
        "pixels": int(np.count_nonzero(labels)),
    }
