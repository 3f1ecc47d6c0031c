"""Refinement of stored labels, block by block, the same for every block size; see `refine` for what is done.

    1. join      one task per block: merged labels into a scratch array      `plan_relabel` of integration.plan
    2. inspect   one task per block, which owns the objects whose first pixel lies in it: each object cropped by its own
                 box, however far it reaches; flow errors to a blob, hole pixels to a blob per block they lie in
    3. number    in the driver: drop, number without gaps                                            `number_refined`
    4. finish    one task per block: provisional labels through the new table, and the holes, into the target

    block A owns object 7   ┌──────────┬──────────┐   A inspects all of 7, and writes its hole pixels for A and for B;
    (its first pixel)       │   7777777│777       │   B's task finds them by name: no task writes another's pixels.
                            │   7    ··│·  7      │
                            │   7777777│7777      │
                            └────A─────┴────B─────┘

A block reads once what its own objects need within 256 px of it (32 in a volume); an object that reaches farther is
read by itself, so memory is bounded by the block and by the largest object. Every step writes the same bytes when it is
run twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sketchscale.engine.base import Json, Plan
from sketchscale.geometry import Box, tile_cover
from sketchscale.integration.merge import ObjectMap
from sketchscale.integration.plan import BlockTask, OutlineJob, check_output, read_fields
from sketchscale.integration.refine import MARGIN, RefineConfig, crop_of, final_numbers, keeps, refine_object
from sketchscale.io.ome_zarr.arrays import ArrayRef, open_array, read_box, write_box
from sketchscale.io.runs.partial_results import get_arrays, put_arrays
from sketchscale.io.stores.blobs import list_blobs

__all__ = ["Refined", "number_refined", "plan_finish", "plan_inspect"]


def _near(shape: Sequence[int]) -> int:
    """px beyond the block within which its objects are read at once."""
    return 256 if len(shape) == 2 else 32


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectJob:
    """What all inspect tasks share; `merged` holds the labels of step 1, `block` is the grid's."""

    fields: ArrayRef
    merged: ArrayRef
    blobs: str
    shape: tuple[int, ...]
    block: tuple[int, ...]
    refine: RefineConfig

    def owner(self, pixel: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Place in raster order of the block that pixels lie in, by their raster indices."""
        counts = tuple(-(-n // b) for n, b in zip(self.shape, self.block, strict=True))
        at = np.unravel_index(pixel, self.shape)
        blocks = tuple(i // b for i, b in zip(at, self.block, strict=True))
        return np.ravel_multi_index(blocks, counts).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishJob:
    """What all finish tasks share."""

    scratch: ArrayRef
    blobs: str
    target: ArrayRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Refined:
    """What refinement left.

    Attributes:
        count: objects.
        dropped: objects dropped for their flow error.
    """

    count: int
    dropped: int


def plan_inspect(
    outline: Plan[BlockTask], objects: ObjectMap | None, merged: ArrayRef, config: RefineConfig
) -> Plan[BlockTask]:
    """Step 2; shares the objects out to their blocks (a small blob each), after `merge_blocks` and step 1.

    Args:
        outline: the plan that made the provisional labels.
        objects: from `merge_blocks`; None where they are not known yet, for a plan that is only looked at.
        merged: the target of step 1.

    Returns:
        A plan; a task gives objects (owned) and filled (px of holes). Its memory grows with the largest object.
    """
    job: OutlineJob = outline.config
    block = outline.tasks[0].core.shape if outline.tasks else job.shape
    inspect = InspectJob(
        fields=job.fields,
        merged=merged,
        blobs=job.blobs,
        shape=job.shape,
        block=tuple(block),
        refine=config,
    )
    largest = 0
    if objects is not None:
        _share_objects(inspect, outline.tasks, objects)
        axes = len(job.shape)
        sides = objects.box[:, axes:] - objects.box[:, :axes] + 2 * MARGIN
        largest = int(np.prod(sides, axis=1).max(initial=0))
    near = max((task.core.grow(_near(job.shape)).size for task in outline.tasks), default=0)
    return Plan(
        stage="inspect",
        fn=inspect_block,
        tasks=outline.tasks,
        config=inspect,
        task_bytes=16 * near + 100 * largest + 32_000_000,
    )


def _share_objects(job: InspectJob, tasks: Sequence[BlockTask], objects: ObjectMap) -> None:
    """To every block the labels and boxes of the objects whose first pixel lies in it."""
    owner = job.owner(objects.first)
    order = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[order], np.arange(len(tasks) + 1))
    for task, start, stop in zip(tasks, bounds[:-1], bounds[1:], strict=True):
        mine = order[start:stop]
        put_arrays(job.blobs, f"owned/{task.key}", {"label": mine + 1, "box": objects.box[mine]})


def inspect_block(task: BlockTask, job: InspectJob) -> Json:
    """One task of step 2."""
    owned = get_arrays(job.blobs, f"owned/{task.key}")
    axes = len(job.shape)
    boxes = [Box(tuple(row[:axes]), tuple(row[axes:])) for row in owned["box"].tolist()]
    errors = np.zeros(len(boxes), np.float64)
    pixels: list[npt.NDArray[np.int64]] = []
    owners: list[npt.NDArray[np.int64]] = []
    for region, members in _regions(task.core.grow(_near(job.shape)), [crop_of(box, job.shape) for box in boxes]):
        labels, flow = read_box(job.merged, region), read_fields(job.fields, region)[:-1]
        for i in members:
            crop = crop_of(boxes[i], job.shape)
            here = crop.relative_to(region.start).slices
            label = int(owned["label"][i])
            holes, errors[i] = refine_object(labels[here], flow[(slice(None), *here)], label, job.refine)
            if holes is not None and keeps(errors[i], job.refine):
                at = np.argwhere(holes) + crop.start
                pixels.append(np.ravel_multi_index(tuple(at.T), job.shape).astype(np.int64))
                owners.append(np.full(len(at), label, np.int64))
    put_arrays(job.blobs, f"error/{task.key}", {"error": errors})
    filled = _put_holes(task, job, pixels, owners)
    return {"objects": len(boxes), "filled": filled}


def _regions(reach: Box, crops: Sequence[Box]) -> Iterator[tuple[Box, list[int]]]:
    """Boxes to read and the objects in each: all within reach at once, each far one alone."""
    near = [i for i, crop in enumerate(crops) if reach.contains(crop)]
    if near:
        starts, stops = zip(*[(crops[i].start, crops[i].stop) for i in near], strict=True)
        yield Box(tuple(map(min, zip(*starts, strict=True))), tuple(map(max, zip(*stops, strict=True)))), near
    for i, crop in enumerate(crops):
        if not reach.contains(crop):
            yield crop, [i]


def _put_holes(
    task: BlockTask, job: InspectJob, pixels: Sequence[npt.NDArray[np.int64]], owners: Sequence[npt.NDArray[np.int64]]
) -> int:
    """Hole pixels to a blob for every block that they lie in; how many there are."""
    if not pixels:
        return 0
    pixel, owner = np.concatenate(pixels), np.concatenate(owners)
    tiles, place = tile_cover(job.shape, job.block), job.owner(pixel)
    for block in np.unique(place).tolist():
        here = place == block
        key = f"holes/{tiles[block].key}/{task.key}"
        put_arrays(job.blobs, key, {"pixel": pixel[here], "label": owner[here]})
    return int(pixel.size)


def number_refined(inspect: Plan[BlockTask], objects: ObjectMap) -> Refined:
    """Step 3, in the driver, after every task of `inspect`: tables of final labels to the blocks.

    Memory: 5 bytes per object. Objects keep their order, because a filled hole never holds an object's first pixel.
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
    """Step 4; its stage is "relabel", as without refinement: the stage that writes the labels.

    Args:
        target: uint32 or uint64, of the image's shape.

    Returns:
        A plan; a task gives checksum, objects (labels present) and pixels (labelled).

    Raises:
        InputError: the target has another shape or type, or blocks cut its write units.
    """
    job: OutlineJob = outline.config
    block = outline.tasks[0].core.shape if outline.tasks else job.shape
    check_output(target, job.shape, block, ("uint32", "uint64"))
    memory = max((40 * t.core.size + 32_000_000 for t in outline.tasks), default=0)
    finish = FinishJob(scratch=job.scratch, blobs=job.blobs, target=target)
    return Plan(stage="relabel", fn=finish_block, tasks=outline.tasks, config=finish, task_bytes=memory)


def finish_block(task: BlockTask, job: FinishJob) -> Json:
    """One task of step 4."""
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
