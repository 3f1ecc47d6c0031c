"""Tasks that compare labels: one block each.

truth, labels ──evaluate─▶ partials/<block>.npz ──collect_overlaps──▶ overlaps    (see metrics)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sketchscale.engine.base import Json, Plan
from sketchscale.errors import InputError
from sketchscale.geometry import Tile, tile_cover
from sketchscale.io.blobs import get_arrays, put_arrays
from sketchscale.metrics import Overlaps, combine_overlaps, count_overlaps
from sketchscale.objects.sources import LabelSource, read_labels, source_shape

__all__ = ["collect_overlaps", "plan_contingency"]

_FOLD_ROWS = 1 << 18
"""Rows of partials held before they are combined: memory stays near that of the result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _EvaluateJob:
    predicted: LabelSource
    truth: LabelSource
    store: str
    prefix: str


def plan_contingency(
    predicted: LabelSource, truth: LabelSource, *, store: str, block: tuple[int, ...], prefix: str = "evaluate"
) -> Plan[Tile]:
    """Count the overlaps of predicted with true labels, block by block; see `collect_overlaps`.

    Args:
        predicted, truth: of one shape, (y, x) or (z, y, x); ids need not be contiguous nor of one type.
        store, prefix: where partials go: `<prefix>/<block>.npz`.
        block: one length for each axis, in pixels.

    Raises:
        InputError: the shapes differ.
    """
    shape, true_shape = source_shape(predicted), source_shape(truth)
    if shape != true_shape:
        raise InputError.of(
            found=f"predicted labels of {shape}, true ones of {true_shape}",
            expected="one shape",
            fix="evaluate the level and the region that were annotated",
        )
    return Plan(
        stage="evaluate",
        fn=_overlaps_of_block,
        tasks=tile_cover(shape, block),
        config=_EvaluateJob(predicted=predicted, truth=truth, store=store, prefix=prefix),
        task_bytes=40 * math.prod(block),
    )


def _overlaps_of_block(tile: Tile, job: _EvaluateJob) -> Json:
    part = count_overlaps(read_labels(job.truth, tile.write), read_labels(job.predicted, tile.write))
    arrays = {"truth": part.truth, "predicted": part.predicted, "pixels": part.pixels}
    put_arrays(job.store, f"{job.prefix}/{tile.key}.npz", arrays)
    return {"pairs": len(part.pixels)}


def collect_overlaps(plan: Plan[Tile]) -> Overlaps:
    """The overlaps of the whole plane, from the partials of a plan that has run; `metrics.score_overlaps` is next.

    Args:
        plan: of `plan_contingency`.

    Raises:
        InputError: a partial is absent or damaged.
    """
    job: _EvaluateJob = plan.config
    waiting, rows = [combine_overlaps([])], 0
    for task in plan.tasks:
        waiting.append(Overlaps(**get_arrays(job.store, f"{job.prefix}/{task.key}.npz")))
        rows += len(waiting[-1].pixels)
        if rows > max(_FOLD_ROWS, len(waiting[0].pixels)):
            waiting, rows = [combine_overlaps(waiting)], 0
    return combine_overlaps(waiting)
