"""The seam audit of volumes: audit.py with one axis more.

Windows on the faces between blocks, drawn at random with a seed, are integrated once more in one piece and compared
with the stored labels. What a window determines, and why, is drawn in audit.py; the argument names no axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sketchscale.engine.base import Json, Plan
from sketchscale.errors import InputError, QualityError
from sketchscale.geometry import Box
from sketchscale.integration.audit import SeamAudit, _certain_pieces
from sketchscale.integration.merge import ObjectMap, join_pieces
from sketchscale.integration.plan import BlockTask
from sketchscale.integration.volume import VolumeConfig, VolumePoints, VolumeRegion, follow_volume, volume_region
from sketchscale.integration.volume_merge import link_counts, local_volume_objects
from sketchscale.integration.volume_plan import VolumeJob, read_volume_fields
from sketchscale.io.arrays import ArrayRef, read_box

__all__ = ["audit_volume_seams"]


def audit_volume_seams(
    outline: Plan[BlockTask],
    outcome: Sequence[Json],
    objects: ObjectMap,
    labels: ArrayRef,
    *,
    windows: int = 6,
    size: int = 64,
    seed: int = 0,
) -> SeamAudit:
    """Recompute random windows on the seams and compare them with the stored labels.

    Args:
        outline: the plan of step 1; its fields are read again.
        outcome: what its tasks returned.
        objects: from `merge_volume_blocks`.
        labels: the target of step 3.
        windows: how many; 0 only collects the figures.
        size: side of a window, voxels; axes that are shorter are audited whole.
        seed: of the positions.

    Returns:
        The record of audit.py; `pixels` are voxels.

    Raises:
        QualityError: a window differs; names the window and the object.
    """
    if windows < 0 or size < 1:
        found = f"{windows} audit windows of {size} voxels"
        raise InputError.of(found=found, expected="0 or more, of 1 voxel or more", fix="other numbers")
    job: VolumeJob = outline.config
    boxes = _seam_windows(outline.tasks, job.shape, windows, size, np.random.default_rng(seed))
    compared = [_compare_window(box, job, objects, labels) for box in boxes]
    return SeamAudit(
        windows=len(boxes),
        objects=sum(compared),
        pixels=sum(box.size for box in boxes),
        blocks=len(outline.tasks),
        crossing=objects.crossing,
        farthest=max((float(result["farthest"]) for result in outcome), default=0.0),
        reach=job.integration.reach,
        halo=job.integration.halo,
    )


def _seam_windows(
    tasks: Sequence[BlockTask], shape: Sequence[int], count: int, size: int, rng: np.random.Generator
) -> list[Box]:
    """Boxes of `size`, centred on a random point of a random block's near face, moved into the volume."""
    boxes = []
    for _ in range(count if tasks else 0):
        core = tasks[int(rng.integers(len(tasks)))].core
        centre = [int(rng.integers(a, b)) for a, b in zip(core.start, core.stop, strict=True)]
        faces = [axis for axis in range(3) if core.start[axis] > 0]
        if faces:
            axis = faces[int(rng.integers(len(faces)))]
            centre[axis] = core.start[axis]
        start = tuple(max(0, min(c - size // 2, n - size)) for c, n in zip(centre, shape, strict=True))
        boxes.append(Box(start, tuple(a + size for a in start)).clip(shape))
    return boxes


def _compare_window(box: Box, job: VolumeJob, objects: ObjectMap, labels: ArrayRef) -> int:
    """How many objects the window determines; all of them are as stored.

    Raises:
        QualityError: one is not.
    """
    config = job.integration
    region = volume_region(box, job.shape, config)
    points = follow_volume(read_volume_fields(job.fields, region.loaded), region, config)
    provisional, found = local_volume_objects(points, region, config)
    merged = join_pieces([found], np.arange(found.area.size), config)
    stored = read_box(labels, box)
    if stored[provisional == 0].any():
        raise QualityError(f"seam audit, window {box}: background voxels are labelled; expected: none")
    closed = _certain_pieces(_closed_pieces(points, found.area.size, region, config), found)
    determined = np.ones(merged.max(initial=-1) + 1, np.bool_)
    np.logical_and.at(determined, merged, closed)
    whole_id = np.concatenate([[0], merged + 1])[provisional]
    areas = np.bincount(whole_id.ravel(), minlength=determined.size + 1)[1:]
    numbers = np.flatnonzero(determined & (areas > 0))
    for number in numbers:
        _compare_object(whole_id == number + 1, stored, box, job, objects)
    return int(numbers.size)


def _closed_pieces(
    points: VolumePoints, count: int, region: VolumeRegion, config: VolumeConfig
) -> npt.NDArray[np.bool_]:
    """Pieces all of whose end points lie so deep in the window that nothing outside belongs to them.

    So deep that voxels ending there lie inside, and that no end point farther out can be linked or climb to them.
    """
    faces = zip(region.core.start, region.core.stop, region.shape, strict=True)
    deep = Box(*zip(*[(a + config.margin * (a > 0), b - config.margin * (b < n)) for a, b, n in faces], strict=True))
    ids, _ = link_counts(points, region, config)
    ids[deep.intersect(region.window).relative_to(region.window.start).slices] = 0
    closed = np.ones(count + 1, np.bool_)
    closed[ids] = False
    return closed[1:]


def _compare_object(
    mask: npt.NDArray[np.bool_], stored: npt.NDArray[np.unsignedinteger], box: Box, job: VolumeJob, objects: ObjectMap
) -> None:
    """The voxels of a determined object carry one label of the right size and first voxel, or none if filtered."""
    area = int(mask.sum())
    place = np.argwhere(mask)[0]
    first = int(np.ravel_multi_index(tuple(place + box.start), job.shape))
    ids = np.unique(stored[mask])
    config = job.integration
    kept = config.min_size <= area and (config.max_size is None or area <= config.max_size)
    if not kept and ids.tolist() == [0]:
        return
    row = int(ids[0]) - 1
    if kept and ids.size == 1 and 0 <= row < objects.count and (objects.area[row], objects.first[row]) == (area, first):
        return
    raise QualityError(
        f"seam audit, window {box}: the object of {area} voxels with first voxel {tuple(place.tolist())} in it is "
        f"stored as labels {ids[:5].tolist()}; expected: one label of that size and first voxel"
        f"{'' if kept else ', or none'}; to fix: run again with --overwrite, and report this: labels depend on blocks"
    )
