"""Features that need the whole object: each object is measured on its crop, in the block where its crop begins.

    ┌────────┬───────     A block reads the crops of its objects, which extend to the right and below but not to the
    │   ┌────┼──┐         left or above: nearly half the chunks of a halo on all sides.
    │   │ ▒▒▒│▒ │         Crop: the object's box and a margin, cut at the image: 8 px for the ring around it,
    ├───┼────┼──┼──       or 1 px for gradients and touching objects, which use the next pixel.
    │   └────┼──┘         An object with a box larger than a block is read alone, so it makes no block large. Objects
                          with more than CROP_LIMIT pixels in their box are not measured: these columns are missing.

Kernels get the crop alone, as a volume (a plane has one section), and read it in raster order: no value depends on the
blocks, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from sketchscale.engine.base import Json, Plan
from sketchscale.geometry import Box
from sketchscale.io.ome_zarr.label_sources import LabelSource, read_labels
from sketchscale.io.ome_zarr.planes import PixelsRef, read_plane
from sketchscale.io.runs.partial_results import get_arrays, put_arrays
from sketchscale.objects.measurement.features import CROP_PARTS, MeasureConfig
from sketchscale.objects.measurement.hulls import hull_and_feret
from sketchscale.objects.measurement.places import Places
from sketchscale.objects.measurement.textures import OUTER, gradients, object_percentiles, ring_around, textures
from sketchscale.objects.measurement.totals import CHANNEL_VALUES, OBJECT_VALUES, Crops

__all__ = ["CROP_LIMIT", "CropTask", "assign_crops", "plan_crops", "read_crops"]

Ints = npt.NDArray[np.int64]

CROP_LIMIT = 1 << 24
"""Pixels of the largest box that is measured as a crop: some 0.5 GB of memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CropTask:
    """Some objects and the box to read for them.

    Attributes:
        index: of the block; one more number for an object that is read alone.
        box: contains all crops.
        first, last: smallest and largest label.
    """

    index: tuple[int, ...]
    box: Box
    first: int
    last: int

    @property
    def key(self) -> str:
        """Name of the task in file names."""
        return ".".join(f"{i:06d}" for i in self.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class _CropJob:
    labels: LabelSource
    image: PixelsRef | None
    config: MeasureConfig
    ranges: tuple[tuple[float, float], ...]
    block: tuple[int, ...]
    store: str


def plan_crops(
    labels: LabelSource,
    image: PixelsRef | None,
    config: MeasureConfig,
    places: Places,
    *,
    store: str,
    block: tuple[int, ...],
) -> Plan[CropTask]:
    """Return the plan that measures features of whole objects; run `assign_crops` before it.

    Args:
        labels, image, config: as for `plan_measure`.
        places: of `collect_places`, after that plan has run.
        store: for objects and values of each block.
        block: px along each axis.

    Returns:
        A plan whose tasks return `{"objects": n}`; without tasks if no such feature is chosen.
    """
    job = _CropJob(labels=labels, image=image, config=config, ranges=places.ranges, block=block, store=store)
    tasks = []
    for index, rows in _assignments(job, places):
        label, (starts, stops) = places.label[rows], _crop(config, places.starts[:, rows], places.stops[:, rows])
        box = Box(tuple(starts.min(axis=1).tolist()), tuple(stops.max(axis=1).tolist()))
        tasks.append(CropTask(index=index, box=box, first=int(label.min()), last=int(label.max())))
    depth = 16 + 2 * np.dtype(config.dtype).itemsize * len(config.channels)
    crop = int(np.prod(places.stops - places.starts + 2 * _margin(config), axis=0).max(initial=0))
    return Plan(
        stage="crops",
        fn=_measure_crops,
        tasks=tasks,
        config=job,
        task_bytes=max((t.box.size for t in tasks), default=0) * depth + 48 * min(crop, CROP_LIMIT),
    )


def _assignments(job: _CropJob, places: Places) -> Iterator[tuple[tuple[int, ...], npt.NDArray[np.intp]]]:
    """Yield index and rows of each task, in raster order of blocks, then those of large objects."""
    if not any(job.config.crop_parts):
        return
    size = places.stops - places.starts
    block = np.array(job.block)[:, None]
    cells = np.maximum(places.starts - _margin(job.config), 0) // block
    small = (size <= block).all(axis=0)
    alone = np.flatnonzero(~small & (np.prod(size, axis=0) <= CROP_LIMIT))
    rows = np.flatnonzero(small)
    order = rows[np.lexsort(cells[::-1, rows])]
    fresh = (np.diff(cells[:, order], axis=1) != 0).any(axis=0)
    for group in np.split(order, np.flatnonzero(fresh) + 1) if len(order) else ():
        yield tuple(cells[:, group[0]].tolist()), group
    for k, row in enumerate(alone):
        yield (*cells[:, row].tolist(), k), alone[k : k + 1]


def _margin(config: MeasureConfig) -> Ints:
    """Return (d, 1): margin of a crop around the box of its object, px."""
    ring = config.wants("ring")
    margin = np.full((len(config.shape), 1), OUTER if ring else 1)
    if ring and len(margin) == 3:
        margin[0] = max(1, math.ceil(OUTER / config.section))
    return margin


def _crop(config: MeasureConfig, starts: Ints, stops: Ints) -> tuple[Ints, Ints]:
    """Return the half-open crops of boxes as (d, n) starts and stops."""
    margin, shape = _margin(config), np.array(config.shape)[:, None]
    return np.maximum(starts - margin, 0), np.minimum(stops + margin, shape)


def assign_crops(plan: Plan[CropTask], places: Places) -> None:
    """Store which objects each task of `plan_crops` measures."""
    job: _CropJob = plan.config
    for task, (_, rows) in zip(plan.tasks, _assignments(job, places), strict=True):
        rows = np.sort(rows)
        arrays = {"label": places.label[rows], "starts": places.starts[:, rows], "stops": places.stops[:, rows]}
        put_arrays(job.store, f"crops/objects/{task.key}.npz", arrays)


def _measure_crops(task: CropTask, job: _CropJob) -> Json:
    mine, config = get_arrays(job.store, f"crops/objects/{task.key}.npz"), job.config
    label, starts, stops = mine["label"], mine["starts"], mine["stops"]
    labels = read_labels(job.labels, task.box)
    labels = np.ascontiguousarray(labels, np.uint64 if labels.dtype.itemsize > 4 else np.uint32)
    # Shapes and touching objects need no intensities, which are most of the data.
    needed = job.image is not None and any(config.crop_parts[CROP_PARTS.index("percentiles") :])
    image = read_plane(job.image, task.box) if job.image and needed else np.empty((0, *task.box.shape), np.uint8)
    origin, flat = np.array(task.box.start)[:, None], np.zeros((3 - len(task.box.start), len(label)), np.int64)
    corners = [np.concatenate([flat, at - origin]) for at in (*_crop(config, starts, stops), starts, stops)]
    for stop in corners[1::2]:
        stop[: len(flat)] = 1  # a plane is one section
    spacing = config.spacing or (1.0,) * len(config.shape)
    values = np.full((len(OBJECT_VALUES), len(label)), np.nan)
    channels = np.full((len(config.channels), len(CHANNEL_VALUES), len(label)), np.nan)
    _measure(
        labels.reshape((1,) * len(flat) + labels.shape),
        np.ascontiguousarray(image).reshape(len(image), *(1,) * len(flat), *labels.shape),
        label.astype(labels.dtype),
        np.stack(corners),
        np.array([config.section, *spacing[-2:]]),
        np.array(job.ranges, np.float64).reshape(-1, 2),
        config.crop_parts,
        np.dtype(config.dtype).kind != "f",
        values,
        channels,
    )
    put_arrays(job.store, f"crops/values/{task.key}.npz", {"label": label, "values": values, "channels": channels})
    return {"objects": len(label)}


def read_crops(plan: Plan[CropTask], task: CropTask) -> Crops:
    """Return the values that a task of `plan_crops` has stored; raise InputError if they are missing or damaged."""
    job: _CropJob = plan.config
    return Crops(**get_arrays(job.store, f"crops/values/{task.key}.npz"))


@numba.njit(nogil=True, cache=True)
def _measure(labels, image, ids, corners, pixel, ranges, parts, integral, values, channels):  # type: ignore[no-untyped-def]
    """Fill the chosen `parts` (see MeasureConfig.crop_parts) of values (4, n) and channels (c, 13, n).

    `corners` (4, 3, n) are the starts and stops of crops and boxes; `pixel` is the distance of sections in px, and the
    height and width of a pixel in um.
    """
    for i in range(len(ids)):
        z, y, x = corners[0, :, i]
        z1, y1, x1 = corners[1, :, i]
        part = labels[z:z1, y:y1, x:x1]
        mask, n = _mask_of(part, ids[i])
        if n == 0:
            continue
        if parts[0]:
            inner = mask[0, corners[2, 1, i] - y : corners[3, 1, i] - y, corners[2, 2, i] - x : corners[3, 2, i] - x]
            first, last = _row_ends(inner)
            values[0, i], values[1, i], values[2, i] = hull_and_feret(first, last, pixel[1], pixel[2])
        if parts[1]:
            values[3, i] = _count_touching(part, mask)
        ring = ring_around(mask, pixel[0]) if parts[4] and len(image) else np.zeros((0, 0, 0), np.bool_)
        for c in range(len(image)):
            crop = image[c, z:z1, y:y1, x:x1].astype(np.float64)
            if parts[2]:
                object_percentiles(crop.reshape(-1)[mask.reshape(-1) == 1], integral, channels[c, 0:5, i])
            if parts[3]:
                channels[c, 5, i], channels[c, 6, i] = gradients(crop, mask, n, pixel[0])
                textures(crop, mask, ranges[c, 0], ranges[c, 1], channels[c, 7:11, i])
            if parts[4]:
                channels[c, 11, i], channels[c, 12, i] = _mean_and_std(crop, ring)


@numba.njit(nogil=True, cache=True)
def _mask_of(part, label):  # type: ignore[no-untyped-def]
    """Return a mask (1 on the object, 2 on others, 0 elsewhere) and the number of the object's pixels."""
    mask, n = np.zeros(part.shape, np.uint8), 0
    for z in range(part.shape[0]):
        for y in range(part.shape[1]):
            for x in range(part.shape[2]):
                if part[z, y, x] == label:
                    mask[z, y, x] = 1
                    n += 1
                elif part[z, y, x] != 0:
                    mask[z, y, x] = 2
    return mask, n


@numba.njit(nogil=True, cache=True)
def _row_ends(mask):  # type: ignore[no-untyped-def]
    """Return first and last column of the object in each row; first > last in a row without it."""
    first, last = np.ones(mask.shape[0], np.int64), np.zeros(mask.shape[0], np.int64)
    for y in range(mask.shape[0]):
        seen = False
        for x in range(mask.shape[1]):
            if mask[y, x] == 1:
                if not seen:
                    first[y], seen = x, True
                last[y] = x
    return first, last


@numba.njit(nogil=True, cache=True)
def _count_touching(part, mask):  # type: ignore[no-untyped-def]
    """Return how many other labels have a pixel among the 8 or 26 neighbours of the object's pixels."""
    found, k = np.empty(16, part.dtype), 0
    depth, height, width = mask.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if mask[z, y, x] != 2 or (k and found[k - 1] == part[z, y, x]):
                    continue
                near = mask[max(0, z - 1) : z + 2, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
                if (near == 1).any():
                    if k == len(found):
                        found = np.concatenate((found, np.empty(k, part.dtype)))
                    found[k] = part[z, y, x]
                    k += 1
    return len(np.unique(found[:k]))


@numba.njit(nogil=True, cache=True)
def _mean_and_std(crop, ring):  # type: ignore[no-untyped-def]
    """Return mean and standard deviation where `ring` is set, summed in raster order; NaN if there are no pixels."""
    n, total, spread = 0, 0.0, 0.0
    values, here = crop.reshape(-1), ring.reshape(-1)
    for i in range(len(here)):
        if here[i]:
            total += values[i]
            n += 1
    if n == 0:
        return np.nan, np.nan
    mean = total / n
    for i in range(len(here)):
        if here[i]:
            spread += (values[i] - mean) ** 2
    return mean, np.sqrt(spread / n)
