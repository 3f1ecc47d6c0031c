"""Tasks that compare labels, one per block.

truth, labels ──evaluate─▶ packed partials ──collect_overlaps──▶ overlaps    (see `evaluation.overlaps`)

A task returns its partial packed as text, about 10 bytes for each pair of labels that meet. So nothing is written, and
workers and driver need no shared place, which a read-only image or a remote cluster may not have.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.engine.base import Json, Plan
from sketchscale.errors import InputError
from sketchscale.evaluation.overlaps import Overlaps, combine_overlaps, count_overlaps
from sketchscale.geometry import Tile, tile_cover
from sketchscale.io.ome_zarr.label_sources import LabelSource, read_labels, source_shape

__all__ = ["collect_overlaps", "packed", "plan_contingency", "unpacked"]

_FOLD_ROWS = 1 << 18
"""Rows of partials that are held before they are combined, so that memory stays close to that of the result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _EvaluateJob:
    predicted: LabelSource
    truth: LabelSource


def plan_contingency(predicted: LabelSource, truth: LabelSource, *, block: tuple[int, ...]) -> Plan[Tile]:
    """Count the overlaps of predicted with true labels, block by block; see `collect_overlaps`.

    Args:
        predicted, truth: of the same shape, (y, x) or (z, y, x); ids may have gaps and different types.
        block: length along each axis, in pixels.

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
        fn=_count_block,
        tasks=tile_cover(shape, block),
        config=_EvaluateJob(predicted=predicted, truth=truth),
        task_bytes=40 * math.prod(block),
    )


def _count_block(tile: Tile, job: _EvaluateJob) -> Json:
    part = count_overlaps(read_labels(job.truth, tile.write), read_labels(job.predicted, tile.write))
    return {name: packed(getattr(part, name)) for name in _COLUMNS}


_COLUMNS = ("truth", "predicted", "pixels")


def packed(values: npt.NDArray[Any]) -> list[str]:
    """Return the type and the values of an array as text, for the result of a task; `unpacked` is the inverse."""
    little = values.astype(values.dtype.newbyteorder("<"))
    return [little.dtype.str, base64.b85encode(zlib.compress(little.tobytes(), 1)).decode("ascii")]


def unpacked(text: Sequence[str]) -> npt.NDArray[Any]:
    """Return the values (n,) that `packed` turned into text.

    >>> unpacked(packed(np.array([3, 4], np.uint8))).tolist()
    [3, 4]
    """
    kind, data = text
    return np.frombuffer(zlib.decompress(base64.b85decode(data)), kind).astype(np.dtype(kind).newbyteorder("="))


def collect_overlaps(results: Iterable[Json]) -> Overlaps:
    """Return the overlaps of the whole plane from the results of `plan_contingency`, for `score_overlaps`."""
    waiting, rows = [combine_overlaps([])], 0
    for result in results:
        waiting.append(Overlaps(**{name: unpacked(result[name]) for name in _COLUMNS}))
        rows += len(waiting[-1].pixels)
        if rows > max(_FOLD_ROWS, len(waiting[0].pixels)):
            waiting, rows = [combine_overlaps(waiting)], 0
    return combine_overlaps(waiting)
