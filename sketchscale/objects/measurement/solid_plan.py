"""Tasks that measure the objects of a volume: one block with depth each, every chunk decoded about once.

    labels, image ──measure──▶ partials/<block>.npz ──combine──▶ table       (driver: some 500 B an object)

As `plan`, for volumes: blocks are a matter of memory and speed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow

from sketchscale.engine.base import Plan
from sketchscale.errors import InputError
from sketchscale.geometry import Tile
from sketchscale.io.planes import VolumeRef
from sketchscale.io.table import batches_of
from sketchscale.objects.measurement.plan import PartialsJob, collect_partials, plan_partials
from sketchscale.objects.measurement.solid_features import solid_table
from sketchscale.objects.measurement.solids import SolidConfig, empty_solids, partial_solids
from sketchscale.objects.sources import LabelSource, source_shape

__all__ = ["collect_solids", "measure_solids", "plan_solids", "solid_config"]


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
    job = PartialsJob(labels=labels, image=volume, store=store, prefix=prefix, config=config, measure=partial_solids)
    return plan_partials(job, block)


def collect_solids(plan: Plan[Tile]) -> pyarrow.Table:
    """The table of all objects, from the partials of a plan that has run; ordered by label.

    Args:
        plan: of `plan_solids`.

    Raises:
        InputError: a partial is absent or damaged.
    """
    config: SolidConfig = plan.config.config
    return solid_table(collect_partials(plan, empty_solids(len(config.channels))), config)


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
