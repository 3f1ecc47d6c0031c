"""The seam audit: proof on the run's own data that the labels do not depend on the blocks.

Windows centred on the faces between blocks, drawn at random with a seed, are integrated again as one block from the
stored fields and compared with the stored labels:

      block 0      │      block 1            Inside a window an object is *determined* when all its end points are at
          ┌────────┼────────┐                least reach + 1 from the window's sides (sides on the image's border do
          │  ░░    │  ▒▒▒▒  │                not count): then all its pixels and its whole border lie inside, and no
          │  ░░  ▓▓▓▓▓▓     │                end point outside can belong to it; and when the flow on that border
          └────────┼────────┘                agrees with no component that is not so. Determined objects have to be
                   │                         equal pixel by pixel, in area and in first pixel; background too.

Ids are not compared, because a window cannot know them; but area and first pixel of the whole object are. So an object
that was split, joined, cut or shifted anywhere is found as soon as one window determines it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sketchscale.engine.base import Json, Plan
from sketchscale.errors import InputError, QualityError
from sketchscale.geometry import Box
from sketchscale.integration.fixed_point import Mask, Uint32
from sketchscale.integration.follow import follow_flow
from sketchscale.integration.links import link_ends
from sketchscale.integration.merge import BlockObjects, ObjectMap, join_components, local_objects
from sketchscale.integration.plan import BlockTask, OutlineJob, read_fields
from sketchscale.integration.region import region_of
from sketchscale.io.ome_zarr.arrays import ArrayRef, read_box

__all__ = ["SeamAudit", "audit_seams", "audit_windows", "compare_background", "compare_object"]

_USUAL = {2: (8, 256), 3: (6, 64)}
"""By number of axes: number of windows, and their side in px."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeamAudit:
    """The result of an audit, for the report.

    Attributes:
        windows: number of windows.
        objects: determined in a window and found equal; one in two windows counts twice.
        pixels: compared pixels.
        blocks: of the run; with one block there are no seams, and windows lie anywhere.
        crossing: objects of the whole image that lie in more than one block.
        farthest: the largest displacement of any pixel, px.
        reach: the bound on it, px.
        halo: how far a block read beyond its core, px.
    """

    windows: int
    objects: int
    pixels: int
    blocks: int
    crossing: int
    farthest: float
    reach: int
    halo: int


def audit_seams(
    outline: Plan[BlockTask],
    outcome: Sequence[Json],
    objects: ObjectMap,
    labels: ArrayRef,
    *,
    windows: int | None = None,
    size: int | None = None,
    seed: int = 0,
) -> SeamAudit:
    """Recompute random windows on the seams and compare them with the stored labels.

    Args:
        outline: the plan of step 1; its fields are read again.
        outcome: the results of its tasks.
        objects: from `merge_blocks`.
        labels: the target of step 3.
        windows: number of windows; 0 only collects the figures. 8 when None, 6 for a volume.
        size: side of a window, px; shorter axes are audited whole. 256 when None, 64 for a volume.
        seed: of the positions.

    Raises:
        QualityError: a window differs; names the window and the object.
    """

    def compare(box: Box) -> int:
        return _compare_window(box, outline.config, objects, labels)

    return audit_windows(compare, outline, outcome, objects, windows=windows, size=size, seed=seed)


def audit_windows(
    compare: Callable[[Box], int],
    outline: Plan[BlockTask],
    outcome: Sequence[Json],
    objects: ObjectMap,
    *,
    windows: int | None,
    size: int | None,
    seed: int,
) -> SeamAudit:
    """Audit with any comparison of a window, which returns the number of objects that it determines, or raises."""
    job: OutlineJob = outline.config
    usual = _USUAL[len(job.shape)]
    windows, size = usual[0] if windows is None else windows, usual[1] if size is None else size
    if windows < 0 or size < 1:
        found = f"{windows} audit windows of {size} px"
        raise InputError.of(found=found, expected="0 or more, of 1 px or more", fix="other numbers")
    boxes = _seam_windows(outline.tasks, job.shape, windows, size, np.random.default_rng(seed))
    compared = [compare(box) for box in boxes]
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
    tasks: Sequence[BlockTask], shape: tuple[int, ...], count: int, size: int, rng: np.random.Generator
) -> list[Box]:
    """Return boxes of `size`, centred on a random point of a random block's near face, moved into the image."""
    boxes = []
    for _ in range(count if tasks else 0):
        core = tasks[int(rng.integers(len(tasks)))].core
        centre = [int(rng.integers(a, b)) for a, b in zip(core.start, core.stop, strict=True)]
        faces = [axis for axis in range(len(shape)) if core.start[axis] > 0]
        if faces:
            axis = faces[int(rng.integers(len(faces)))]
            centre[axis] = core.start[axis]
        start = tuple(max(0, min(c - size // 2, n - size)) for c, n in zip(centre, shape, strict=True))
        boxes.append(Box(start, tuple(a + size for a in start)).clip(shape))
    return boxes


def _compare_window(box: Box, job: OutlineJob, objects: ObjectMap, labels: ArrayRef) -> int:
    """Return the number of objects that the window determines.

    Raises:
        QualityError: one of them is not as stored.
    """
    config = job.walk
    region = region_of(box, job.shape, config)
    points = follow_flow(read_fields(job.fields, region.loaded), region, config)
    provisional, found = local_objects(points, region, config)
    merged = join_components([found], np.arange(found.area.size))
    stored = read_box(labels, box)
    compare_background(provisional, stored, box)
    # closed: all end points lie so deep that pixels ending there lie inside, and nothing outside is linked or climbs
    faces = zip(region.core.start, region.core.stop, region.shape, strict=True)
    deep = Box(*zip(*[(a + config.margin * (a > 0), b - config.margin * (b < n)) for a, b, n in faces], strict=True))
    ids, _ = link_ends(points, region, config)
    ids[deep.intersect(region.window).relative_to(region.window.start).slices] = 0
    closed = np.ones(found.area.size + 1, np.bool_)
    closed[ids] = False
    certain = _certain_components(closed[1:], found)
    determined = np.ones(merged.max(initial=-1) + 1, np.bool_)
    np.logical_and.at(determined, merged, certain)
    whole_id = np.concatenate([[0], merged + 1])[provisional]
    areas = np.bincount(whole_id.ravel(), minlength=determined.size + 1)[1:]
    numbers = np.flatnonzero(determined & (areas > 0))
    for number in numbers:
        compare_object(whole_id == number + 1, stored, box, job, objects)
    return int(numbers.size)


def _certain_components(closed: Mask, found: BlockObjects) -> Mask:
    """Return which components are closed and cannot be joined with an open one.

    An open component may go on outside, with more border and a higher peak, or may be one with another open component.
    But a closed component's whole border is inside, so it is joined with no open component that does not agree with it.
    """
    agreeing = found.pair[(found.vote > 0) | (found.near > 0)] - 1
    open_side = ~closed[agreeing]
    certain = closed.copy()
    certain[agreeing[open_side[:, ::-1]]] = False
    return certain


def compare_background(provisional: Uint32, stored: npt.NDArray[np.unsignedinteger], box: Box) -> None:
    """Check that no background pixel of a window is labelled.

    Raises:
        QualityError: one is.
    """
    if stored[provisional == 0].any():
        raise QualityError(f"seam audit, window {box}: background pixels are labelled; expected: none")


def compare_object(
    mask: Mask, stored: npt.NDArray[np.unsignedinteger], box: Box, job: OutlineJob, objects: ObjectMap
) -> None:
    """Check that the pixels of a determined object have one label, of the right area and first pixel, or none.

    Raises:
        QualityError: they do not.
    """
    area = int(mask.sum())
    place = np.argwhere(mask)[0]
    first = int(np.ravel_multi_index(tuple(place + box.start), job.shape))
    ids = np.unique(stored[mask])
    config = job.integration
    kept = config.min_size <= area and (config.max_size is None or area <= config.max_size)
    row = int(ids[0]) - 1
    if not kept and ids.tolist() == [0]:
        return
    known = kept and ids.size == 1 and 0 <= row < objects.count
    if known and objects.area[row] == area and objects.first[row] == first:
        return
    raise QualityError(
        f"seam audit, window {box}: the object of {area} px with first pixel {tuple(place.tolist())} in it is stored "
        f"as labels {ids[:5].tolist()}; expected: one label of that area and first pixel{'' if kept else ', or none'}; "
        f"to fix: run again with --overwrite, and report this: labels depend on the blocks"
    )
