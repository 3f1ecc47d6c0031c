"""Features that need the whole object: measured on its crop, each object in the block where its crop begins.

    ┌────────┬───────     A block reads what its objects' crops cover, so it reads on to the right and below, never to
    │   ┌────┼──┐         the left or above: nearly half the chunks of a halo on all sides.
    │   │ ▒▒▒│▒ │         Crop: the object's box and a margin, cut at the image: 8 px for the ring around it,
    ├───┼────┼──┼──       of 1 px for gradients and touching objects, which look at the next pixel.
    │   └────┼──┘         An object whose box is larger than a block is read alone, so it makes no block large; one
                          whose box has more than CROP_LIMIT pixels is not measured here: these columns are missing.

Kernels see the crop alone and read it in raster order: no value depends on the blocks, to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from sketchscale.engine.base import Json, Plan
from sketchscale.geometry import Box
from sketchscale.io.parts import get_arrays, put_arrays
from sketchscale.io.planes import PlaneRef, read_plane
from sketchscale.objects.measurement.features import CROP_PARTS, MeasureConfig
from sketchscale.objects.measurement.hulls import hull_and_feret
from sketchscale.objects.measurement.places import Places
from sketchscale.objects.measurement.textures import OUTER, gradients, object_percentiles, ring_around, textures
from sketchscale.objects.measurement.totals import CHANNEL_VALUES, OBJECT_VALUES, Crops
from sketchscale.objects.sources import LabelSource, read_labels

__all__ = ["CROP_LIMIT", "CropTask", "crop_objects", "deal_crops", "plan_crops", "read_crops"]

CROP_LIMIT = 1 << 24
"""Pixels of the largest box that is measured as a crop: some 0.5 GB of memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CropTask:
    """Some objects and what to read for them.

    Attributes:
        index: of the block; a third number for an object that is read alone.
        box: all crops lie in it.
        first, last: smallest and largest label.
    """

    index: tuple[int, ...]
    box: Box
    first: int
    last: int

    @property
    def key(self) -> str:
        return ".".join(f"{i:06d}" for i in self.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class _CropJob:
    labels: LabelSource
    plane: PlaneRef | None
    config: MeasureConfig
    ranges: tuple[tuple[float, float], ...]
    block: tuple[int, int]
    store: str
    prefix: str


def plan_crops(
    labels: LabelSource,
    plane: PlaneRef | None,
    config: MeasureConfig,
    places: Places,
    *,
    store: str,
    block: tuple[int, int],
    prefix: str = "crops",
) -> Plan[CropTask]:
    """Measure what needs whole objects; run `deal_crops` before it.

    Args:
        labels, plane, config: as for `plan_measure`.
        places: of `collect_places`, after that plan has run.
        store, prefix: where objects and values of each block are kept.
        block: (y, x) in pixels.

    Returns:
        A plan whose tasks return `{"objects": n}`; without tasks when no such feature is wanted.
    """
    job = _CropJob(
        labels=labels,
        plane=plane,
        config=config,
        ranges=config.texture_ranges or places.ranges,
        block=block,
        store=store,
        prefix=prefix,
    )
    tasks = [_task(job, places, index, rows) for index, rows in _deal(job, places)]
    depth = 16 + 2 * np.dtype(config.dtype).itemsize * len(config.channels)
    crop = int(np.prod(places.stops - places.starts + 2 * OUTER, axis=0).max(initial=0))
    return Plan(
        stage="crops",
        fn=_measure_crops,
        tasks=tasks,
        config=job,
        task_bytes=max((t.box.size for t in tasks), default=0) * depth + 48 * min(crop, CROP_LIMIT),
    )


def _deal(job: _CropJob, places: Places) -> Iterator[tuple[tuple[int, ...], npt.NDArray[np.intp]]]:
    """Index and rows of each task, in raster order of blocks, those of large objects behind."""
    if not any(job.config.crop_parts):
        return
    size = places.stops - places.starts
    block = np.array(job.block)[:, None]
    cells = np.maximum(places.starts - _margin(job.config), 0) // block
    small = (size <= block).all(axis=0)
    alone = np.flatnonzero(~small & (np.prod(size, axis=0) <= CROP_LIMIT))
    rows = np.flatnonzero(small)
    order = rows[np.lexsort((cells[1, rows], cells[0, rows]))]
    fresh = (np.diff(cells[:, order], axis=1) != 0).any(axis=0)
    for group in np.split(order, np.flatnonzero(fresh) + 1) if len(order) else ():
        yield tuple(cells[:, group[0]].tolist()), group
    for k, row in enumerate(alone):
        yield (*cells[:, row].tolist(), k), alone[k : k + 1]


def _margin(config: MeasureConfig) -> int:
    return OUTER if config.wants("ring") else 1


def _task(job: _CropJob, places: Places, index: tuple[int, ...], rows: npt.NDArray[np.intp]) -> CropTask:
    start, stop = places.starts[:, rows].min(axis=1), places.stops[:, rows].max(axis=1)
    box = Box(tuple(start.tolist()), tuple(stop.tolist())).grow(_margin(job.config)).clip(job.config.shape)
    label = places.label[rows]
    return CropTask(index=index, box=box, first=int(label.min()), last=int(label.max()))


def deal_crops(plan: Plan[CropTask], places: Places) -> None:
    """Write down which objects each task of `plan_crops` measures."""
    job: _CropJob = plan.config
    for task, (_, rows) in zip(plan.tasks, _deal(job, places), strict=True):
        rows = np.sort(rows)
        arrays = {"label": places.label[rows], "starts": places.starts[:, rows], "stops": places.stops[:, rows]}
        put_arrays(job.store, f"{job.prefix}/objects/{task.key}.npz", arrays)


def _measure_crops(task: CropTask, job: _CropJob) -> Json:
    mine = get_arrays(job.store, f"{job.prefix}/objects/{task.key}.npz")
    labels = read_labels(job.labels, task.box)
    # Shapes and touching objects need no intensities, whose chunks are most of the reading.
    needed = job.plane is not None and any(job.config.crop_parts[CROP_PARTS.index("percentiles") :])
    image = read_plane(job.plane, task.box) if job.plane and needed else np.empty((0, *task.box.shape), np.uint8)
    crops = crop_objects(labels, image, task.box, mine["label"], mine["starts"], mine["stops"], job.config, job.ranges)
    arrays = {"label": crops.label, "values": crops.values, "channels": crops.channels}
    put_arrays(job.store, f"{job.prefix}/values/{task.key}.npz", arrays)
    return {"objects": len(crops.label)}


def read_crops(plan: Plan[CropTask], task: CropTask) -> Crops:
    """What a task of `plan_crops` has measured.

    Raises:
        InputError: it is absent or damaged.
    """
    job: _CropJob = plan.config
    return Crops(**get_arrays(job.store, f"{job.prefix}/values/{task.key}.npz"))


def crop_objects(
    labels: npt.NDArray[Any],
    image: npt.NDArray[Any],
    box: Box,
    label: npt.NDArray[np.uint64],
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    config: MeasureConfig,
    ranges: tuple[tuple[float, float], ...],
) -> Crops:
    """Measure objects whose crops lie in one box.

    Args:
        labels: (y, x) ids, image: (c, y, x) intensities, both of `box`; an image without channels gives none of theirs.
        label, starts, stops: (n,), (2, n), (2, n): the objects and their boxes in the image.
        ranges: lowest and highest intensity of each channel, for textures.

    Returns:
        Values in the order of `label`; NaN where a part of them is not wanted.
    """
    labels = np.ascontiguousarray(labels, np.uint64 if labels.dtype.itemsize > 4 else np.uint32)
    values = np.full((len(OBJECT_VALUES), len(label)), np.nan)
    channels = np.full((len(config.channels), len(CHANNEL_VALUES), len(label)), np.nan)
    margin = _margin(config)
    crops = np.concatenate(
        [np.maximum(starts - margin, 0), np.minimum(stops + margin, np.array(config.shape)[:, None])]
    )
    crops -= np.tile(box.start, 2)[:, None]
    inside = np.concatenate([starts, stops]) - np.tile(box.start, 2)[:, None]
    _measure(
        labels,
        np.ascontiguousarray(image),
        label.astype(labels.dtype),
        crops,
        inside,
        np.array(config.spacing or (1.0, 1.0)),
        np.array(ranges, np.float64).reshape(-1, 2),
        config.crop_parts,
        np.dtype(config.dtype).kind != "f",
        values,
        channels,
    )
    return Crops(label=label, values=values, channels=channels)


@numba.njit(nogil=True, cache=True)
def _measure(labels, image, ids, crops, boxes, pixel, ranges, parts, integral, values, channels):  # type: ignore[no-untyped-def]
    """Fill values (4, n) and channels (c, 13, n); `parts` says which, see MeasureConfig.crop_parts."""
    for i in range(len(ids)):
        y0, x0, y1, x1 = crops[0, i], crops[1, i], crops[2, i], crops[3, i]
        part = labels[y0:y1, x0:x1]
        mask, n = _mask_of(part, ids[i])
        if n == 0:
            continue
        if parts[0]:
            top, left = boxes[0, i] - y0, boxes[1, i] - x0
            inner = mask[top : boxes[2, i] - y0, left : boxes[3, i] - x0]
            first, last = _row_ends(inner)
            values[0, i], values[1, i], values[2, i] = hull_and_feret(first, last, pixel[0], pixel[1])
        if parts[1]:
            values[3, i] = _count_touching(part, mask)
        ring = ring_around(mask) if parts[4] and len(image) else np.zeros((0, 0), np.bool_)
        for c in range(len(image)):
            plane = image[c, y0:y1, x0:x1].astype(np.float64)
            if parts[2]:
                object_percentiles(_values_in(plane, mask, n), integral, channels[c, 0:5, i])
            if parts[3]:
                channels[c, 5, i], channels[c, 6, i] = gradients(plane, mask, n)
                textures(plane, mask, ranges[c, 0], ranges[c, 1], channels[c, 7:11, i])
            if parts[4]:
                channels[c, 11, i], channels[c, 12, i] = _mean_and_std(plane, ring)


@numba.njit(nogil=True, cache=True)
def _mask_of(part, label):  # type: ignore[no-untyped-def]
    """1 on the object, 2 on others, 0 elsewhere; and the object's pixels."""
    mask, n = np.zeros(part.shape, np.uint8), 0
    for y in range(part.shape[0]):
        for x in range(part.shape[1]):
            if part[y, x] == label:
                mask[y, x] = 1
                n += 1
            elif part[y, x] != 0:
                mask[y, x] = 2
    return mask, n


@numba.njit(nogil=True, cache=True)
def _row_ends(mask):  # type: ignore[no-untyped-def]
    """First and last column of the object in each row; first > last in a row without it."""
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
    """How many other labels have a pixel among the eight neighbours of the object's pixels."""
    height, width = mask.shape
    found, k = np.empty(16, part.dtype), 0
    for y in range(height):
        for x in range(width):
            if mask[y, x] != 2 or (k and found[k - 1] == part[y, x]):
                continue
            near = mask[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
            if (near == 1).any():
                if k == len(found):
                    found = np.concatenate((found, np.empty(k, part.dtype)))
                found[k] = part[y, x]
                k += 1
    return len(np.unique(found[:k]))


@numba.njit(nogil=True, cache=True)
def _values_in(plane, mask, n):  # type: ignore[no-untyped-def]
    inside, k = np.empty(n), 0
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            if mask[y, x] == 1:
                inside[k] = plane[y, x]
                k += 1
    return inside


@numba.njit(nogil=True, cache=True)
def _mean_and_std(plane, ring):  # type: ignore[no-untyped-def]
    """Of the pixels where `ring` is set, in raster order; NaN when there are none."""
    n, total, spread = 0, 0.0, 0.0
    for y in range(ring.shape[0]):
        for x in range(ring.shape[1]):
            if ring[y, x]:
                total += plane[y, x]
                n += 1
    if n == 0:
        return np.nan, np.nan
    mean = total / n
    for y in range(ring.shape[0]):
        for x in range(ring.shape[1]):
            if ring[y, x]:
                spread += (plane[y, x] - mean) ** 2
    return mean, np.sqrt(spread / n)
