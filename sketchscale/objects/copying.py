"""Tasks that check labels of any source and copy them into an array of ours without changing ids."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.engine.base import Json, Plan
from sketchscale.errors import InputError
from sketchscale.geometry import Tile, tile_cover
from sketchscale.io.files.masks import few_values
from sketchscale.io.ome_zarr.arrays import ArrayRef, open_array, write_box
from sketchscale.io.ome_zarr.label_sources import LabelSource, read_labels, source_shape
from sketchscale.objects.components import PIXEL_BYTES, Components

__all__ = ["plan_check_labels", "plan_copy_labels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _CopyJob:
    source: LabelSource
    target: ArrayRef


@dataclass(frozen=True, slots=True, kw_only=True)
class _CheckJob:
    source: LabelSource
    dtype: str


def plan_check_labels(source: LabelSource, shape: tuple[int, ...], dtype: str, block: tuple[int, ...]) -> Plan[Tile]:
    """Return a plan that checks whether labels can be copied; run it before the target is created.

    Args:
        source: (y, x) or (z, y, x) integers of any type, 0 for background.
        shape: of the image that they outline, with all axes.
        dtype: of the copy.
        block: pixels of a task.

    Returns:
        A plan whose tasks return `{"largest": id, "few": values}`; for the latter see `io.files.masks.few_values`.

    Raises:
        InputError: the shapes differ; while it runs: an id that is negative or that `dtype` does not hold.
    """
    found = source_shape(source)
    _check_shape(found, tuple(shape[-len(found) :]))
    return Plan(
        stage="check-labels",
        fn=_check_block,
        tasks=tile_cover(found, block),
        config=_CheckJob(source=source, dtype=dtype),
        task_bytes=12 * math.prod(block),
    )


def _check_shape(found: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if found != shape:
        raise InputError.of(
            found=f"labels of shape {found}",
            expected=f"the shape of the image, {shape}",
            fix="export the labels at full size, or choose their own image",
        )


def plan_copy_labels(source: LabelSource, target: ArrayRef, block: tuple[int, ...]) -> Plan[Tile]:
    """Return a plan that copies labels block by block.

    Args:
        source: (y, x) or (z, y, x) integers of any type, 0 for background.
        target: an existing array of the same shape.
        block: whole write units of the target.

    Returns:
        A plan whose tasks return `{"checksum": ..., "largest": id}`.

    Raises:
        InputError: the shapes differ; while it runs: an id that the target's type does not hold.
    """
    shape = tuple(open_array(target).shape)
    _check_shape(source_shape(source), shape)
    return Plan(
        stage="copy",
        fn=_copy_block,
        tasks=tile_cover(shape, block),
        config=_CopyJob(source=source, target=target),
        task_bytes=(20 + (PIXEL_BYTES if isinstance(source, Components) else 0)) * math.prod(block),
    )


def _check_block(tile: Tile, job: _CheckJob) -> Json:
    labels = read_labels(job.source, tile.write)
    return {"largest": _largest(labels, np.dtype(job.dtype), tile), "few": few_values(labels)}


def _copy_block(tile: Tile, job: _CopyJob) -> Json:
    labels, dtype = read_labels(job.source, tile.write), open_array(job.target).dtype
    largest = _largest(labels, dtype, tile)
    return {"checksum": write_box(job.target, tile.write, labels.astype(dtype)), "largest": largest}


def _largest(labels: npt.NDArray[Any], dtype: np.dtype[Any], tile: Tile) -> int:
    """Return the largest id; raise if `dtype` does not hold it."""
    largest = int(labels.max(initial=0))
    if largest > np.iinfo(dtype).max:
        raise InputError.of(
            found=f"label {largest} in box {tile.write}",
            expected=f"ids up to {np.iinfo(dtype).max}",
            fix="renumber the labels",
        )
    return largest
