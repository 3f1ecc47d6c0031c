"""The seam audit of the watershed: windows on the seams, flooded as one block and compared with the stored labels.

A window holds a whole tree, and so determines the object, when none of its pixels lies on a side of the window within
the image and no edge of it was left open (see flood.py): then every edge that leaves it is seen, and belongs to no
tree. Determined objects have to be equal pixel by pixel, in area and in first pixel; background too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sketchscale.engine.base import Json, Plan
from sketchscale.geometry import Box
from sketchscale.integration.audit import SeamAudit, audit_windows, compare_background, compare_object
from sketchscale.integration.merge import ObjectMap
from sketchscale.integration.plan import BlockTask, OutlineJob, read_fields
from sketchscale.integration.watershed.flood import flood_block
from sketchscale.integration.watershed.plan import rule_of
from sketchscale.integration.watershed.relief import relief_of, surroundings_of
from sketchscale.io.ome_zarr.arrays import ArrayRef, read_box

__all__ = ["audit_floods"]


def audit_floods(
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

    Args, raises: as `integration.audit.audit_seams`; `objects` are from `merge_basins`.
    """

    def compare(box: Box) -> int:
        return _compare_window(box, outline.config, objects, labels)

    return audit_windows(compare, outline, outcome, objects, windows=windows, size=size, seed=seed)


def _compare_window(box: Box, job: OutlineJob, objects: ObjectMap, labels: ArrayRef) -> int:
    """Return the number of objects that the window determines.

    Raises:
        QualityError: one of them is not as stored.
    """
    around = surroundings_of(box, job.shape, rule_of(job))
    provisional, basins = flood_block(relief_of(read_fields(job.fields, around.read), around, rule_of(job)), around)
    stored = read_box(labels, box)
    compare_background(provisional, stored, box)
    numbers = np.flatnonzero(basins.closed & (basins.area > 0))
    for number in numbers:
        compare_object(provisional == number + 1, stored, box, job, objects)
    return int(numbers.size)
