"""Tasks that copy labels of any source into an array of ours, ids as they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sketchscale.engine.base import Json, Plan
from sketchscale.errors import InputError
from sketchscale.geometry import Tile, tile_cover
from sketchscale.io.arrays import ArrayRef, open_array, write_box
from sketchscale.objects.sources import LabelSource, read_labels, source_shape

__all__ = ["plan_copy_labels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _CopyJob:
    source: LabelSource
    target: ArrayRef


def plan_copy_labels(source: LabelSource, target: ArrayRef, block: tuple[int, ...]) -> Plan[Tile]:
    """Copy labels, block by block.

    Args:
        source: (y, x) or (z, y, x) whole numbers of any type, 0 for background.
        target: an array of the same shape, created beforehand.
        block: whole write units of the target.

    Returns:
        A plan whose tasks return `{"checksum": ..., "largest": id}`.

    Raises:
        InputError: the shapes differ; while it runs, an id that the target's type does not hold.
    """
    shape = tuple(open_array(target).shape)
    if source_shape(source) != shape:
        raise InputError.of(
            found=f"labels of shape {source_shape(source)}",
            expected=f"the shape of the image, {shape}",
            fix="export the labels at full size, or choose their own image",
        )
    return Plan(
        stage="copy",
        fn=_copy_block,
        tasks=tile_cover(shape, block),
        config=_CopyJob(source=source, target=target),
        task_bytes=20 * math.prod(block),
    )


def _copy_block(tile: Tile, job: _CopyJob) -> Json:
    labels = read_labels(job.source, tile.write)
    dtype, largest = open_array(job.target).dtype, int(labels.max(initial=0))
    if largest > np.iinfo(dtype).max:
        raise InputError.of(
            found=f"label {largest} in box {tile.write}",
            expected=f"ids up to {np.iinfo(dtype).max}",
            fix="renumber the labels",
        )
    return {"checksum": write_box(job.target, tile.write, labels.astype(dtype)), "largest": largest}
