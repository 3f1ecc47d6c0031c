"""Tasks that measure the objects of a volume: one block with depth each, every chunk decoded about once.

    labels, image ──measure──▶ partials/<block>.npz ──combine──▶ table       (driver: some 500 B an object)

As `plan`, for volumes: blocks are a matter of memory and speed alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow

from sketchscale.engine.base import Json, Plan
from sketchscale.errors import InputError
from sketchscale.geometry import Tile, tile_cover
from sketchscale.io.blobs import put_arrays
from sketchscale.io.planes import VolumeRef, read_plane
from sketchscale.io.table import batches_of
from sketchscale.objects.measurement.plan import collect_partials
from sketchscale.objects.measurement.solid_features import solid_table
from sketchscale.objects.measurement.solids import SolidConfig, empty_solids, partial_solids
from sketchscale.objects.sources import LabelSource, read_windows, source_shape

__all__ = ["collect_solids", "measure_solids", "plan_solids", "solid_config"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _SolidJob:
    labels: LabelSource
    volume: VolumeRef | None
    store: str
    prefix: str
    config: SolidConfig


def solid_config(
    labels: LabelSource,
    volume: VolumeRef | None,
    *,
    ranges: Sequence[tuple[float, float]] = (),
    features: Sequence[str] | None = None,
) -> SolidConfig:
    """The configuration for measuring these labels on this volume.

    Args:
        volume: None measures geometry only.
        ranges: of `plan.collect_ranges`; needed where `plan.needs_ranges(volume)`.
        features: of `choose_solid_features`; None for all.

    Raises:
        InputError: the labels are no volume, labels and volume differ in shape, or ranges are missing.
    """
    shape = source_shape(labels)
    if len(shape) != 3 or (volume is not None and volume.shape != shape):
        raise InputError.of(
            found=f"labels of {shape}, an image of {'any shape' if volume is None else volume.shape}",
            expected="one shape (z, y, x)",
            fix="measure the level that was segmented",
        )
    return SolidConfig(
        shape=(shape[0], shape[1], shape[2]),
        channels=volume.channels if volume else (),
        dtype=volume.dtype if volume else "uint8",
        ranges=tuple(ranges),
        spacing=volume.spacing_um if volume else None,
        features=None if features is None else tuple(features),
    )


def plan_solids(
    labels: LabelSource,
    volume: VolumeRef | None,
    config: SolidConfig,
    *,
    store: str,
    block: tuple[int, ...],
    prefix: str = "measure",
) -> Plan[Tile]:
    """Measure every object of a volume, block by block.

    Args:
        config: of `solid_config`.
        store, prefix: where partials go: `<prefix>/<block>.npz`.
        block: (z, y, x) in voxels; best a whole number of chunks of labels and image.

    Returns:
        A plan whose tasks return `{"objects": n}`: objects with a voxel or a neighbouring one in the block.
    """
    job = _SolidJob(labels=labels, volume=volume, store=store, prefix=prefix, config=config)
    voxels = math.prod(min(b, n) + 2 for b, n in zip(block, config.shape, strict=True))
    depth = np.dtype(config.dtype).itemsize * len(config.channels)
    return Plan(
        stage="measure",
        fn=_measure_block,
        tasks=tile_cover(config.shape, block),
        config=job,
        task_bytes=voxels * (2 * depth + 30),
    )


def _measure_block(tile: Tile, job: _SolidJob) -> Json:
    write = tile.write
    labels = read_windows(job.labels, write)
    image = np.empty((0, *write.shape), np.uint8) if job.volume is None else read_plane(job.volume, write)
    part = partial_solids(labels, image, write.start, job.config)
    put_arrays(job.store, f"{job.prefix}/{tile.key}.npz", part.as_arrays())
    return {"objects": len(part.label)}


def collect_solids(plan: Plan[Tile]) -> pyarrow.Table:
    """The table of all objects, from the partials of a plan that has run; ordered by label.

    Args:
        plan: of `plan_solids`.

    Raises:
        InputError: a partial is absent or damaged.
    """
    job: _SolidJob = plan.config
    return solid_table(collect_partials(plan, empty_solids(len(job.config.channels))), job.config)


def measure_solids(
    labels: LabelSource,
    volume: VolumeRef | None,
    config: SolidConfig,
    run: Callable[[Plan[Any]], object],
    *,
    store: str,
    block: tuple[int, ...],
) -> Iterator[pyarrow.RecordBatch]:
    """Both steps: the rows of the table, ordered by label; at least one batch, which may be empty.

    Args:
        labels, volume, config, block: as for `plan_solids`.
        run: runs a plan to its end.
        store: scratch space, left to the caller to clear after the last row.
    """
    plan = plan_solids(labels, volume, config, store=store, block=block)
    run(plan)
    yield from batches_of(collect_solids(plan).combine_chunks())
