"""Tasks that measure objects: one block each, every chunk decoded about once.

    labels, image ──measure──▶ partials/<block>.npz ──read_partials────▶ table        (see `stream`)
    image ─────────ranges────▶ lowest and highest value                               (float images only)

A task writes its partial as one small object and returns counts. Partials add up exactly and can be read in any order
(`partials`), so blocks affect only memory and speed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sketchscale.engine.base import Json, Plan
from sketchscale.errors import InputError
from sketchscale.geometry import Tile, tile_cover
from sketchscale.io.ome_zarr.label_sources import LabelSource, read_windows, source_shape
from sketchscale.io.ome_zarr.planes import PixelsRef, read_plane
from sketchscale.io.runs.partial_results import get_arrays, put_arrays
from sketchscale.objects.measurement.blocks import partial_objects
from sketchscale.objects.measurement.features import MeasureConfig
from sketchscale.objects.measurement.partials import AXES, Partial, is_exact

__all__ = [
    "collect_ranges",
    "measure_config",
    "measure_config_of",
    "needs_ranges",
    "plan_measure",
    "plan_ranges",
    "read_partials",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _MeasureJob:
    labels: LabelSource
    image: PixelsRef | None
    store: str
    config: MeasureConfig


def measure_config(
    labels: LabelSource,
    image: PixelsRef | None,
    *,
    ranges: Sequence[tuple[float, float]] = (),
    tile_stride: tuple[int, ...] | None = None,
    features: Sequence[str] | None = None,
) -> MeasureConfig:
    """Return the configuration for measuring these labels on this image.

    Args:
        image: None measures geometry only.
        ranges: of `collect_ranges`; needed if `needs_ranges(image)`.
        tile_stride, features: see `MeasureConfig`.

    Raises:
        InputError: labels and image differ in shape, or ranges are missing.
    """
    shape = source_shape(labels)
    if image is not None and image.shape != shape:
        raise InputError.of(
            found=f"labels of {shape}, an image of {image.shape}",
            expected=f"one shape ({', '.join(AXES[-len(shape) :])})",
            fix="measure the level that was segmented",
        )
    return MeasureConfig(
        shape=shape,
        channels=image.channels if image else (),
        dtype=image.dtype if image else "uint8",
        ranges=tuple(ranges),
        spacing=image.spacing_um if image else None,
        tile_stride=tile_stride,
        features=tuple(features) if features is not None else None,
    )


def plan_measure(
    labels: LabelSource, image: PixelsRef | None, config: MeasureConfig, *, store: str, block: tuple[int, ...]
) -> Plan[Tile]:
    """Return the plan that measures every object of an image, block by block.

    Args:
        config: of `measure_config`.
        store: for the partials, `measure/<block>.npz`; see `stream.stream_features`.
        block: px along each axis; best a whole number of chunks of labels and image.

    Returns:
        A plan whose tasks return `{"objects": n}`: objects with a pixel in or next to the block.
    """
    pixels = math.prod(min(b, n) + 2 for b, n in zip(block, config.shape, strict=True))
    depth = np.dtype(config.dtype).itemsize * len(config.channels)
    return Plan(
        stage="measure",
        fn=_measure_block,
        tasks=tile_cover(config.shape, block),
        config=_MeasureJob(labels=labels, image=image, store=store, config=config),
        task_bytes=pixels * (2 * depth + 30),
    )


def _measure_block(tile: Tile, job: _MeasureJob) -> Json:
    write = tile.write
    labels = read_windows(job.labels, write)
    image = np.empty((0, *write.shape), np.uint8) if job.image is None else read_plane(job.image, write)
    part = partial_objects(labels, image, write.start, job.config.coding)
    put_arrays(job.store, f"measure/{tile.key}.npz", part.as_arrays())
    return {"objects": len(part.label)}


def read_partials(plan: Plan[Any], tasks: Iterable[Tile] | None = None) -> Iterator[Partial]:
    """Yield the partials of tasks, of all tasks if None.

    Args:
        plan: of `plan_measure`, after it has run.

    Raises:
        InputError: a partial is missing or damaged.
    """
    for task in plan.tasks if tasks is None else tasks:
        yield Partial(**get_arrays(plan.config.store, f"measure/{task.key}.npz"))


def measure_config_of(plan: Plan[Tile]) -> MeasureConfig:
    """Return the configuration of a `plan_measure`."""
    config: MeasureConfig = plan.config.config
    return config


def needs_ranges(plane: PixelsRef) -> bool:
    """Return whether measuring this image needs `plan_ranges` first: floats and 64-bit integers."""
    return not is_exact(plane.dtype)


def plan_ranges(plane: PixelsRef, block: tuple[int, ...]) -> Plan[Tile]:
    """Return the plan that finds the lowest and highest value of each channel; see `collect_ranges`."""
    depth = np.dtype(plane.dtype).itemsize * len(plane.channels)
    return Plan(
        stage="ranges",
        fn=_range_of_block,
        tasks=tile_cover(plane.shape, block),
        config=plane,
        task_bytes=3 * math.prod(block) * depth,
    )


def _range_of_block(tile: Tile, plane: PixelsRef) -> Json:
    image = read_plane(plane, tile.write)
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        bad = int(np.count_nonzero(~np.isfinite(image)))
        raise InputError.of(
            found=f"{plane.array}: {bad} pixels that are NaN or Inf in box {tile.write}",
            expected="finite intensities",
            fix="replace them before measuring",
        )
    return [[float(c.min()), float(c.max())] for c in image]


def collect_ranges(results: Sequence[Json]) -> tuple[tuple[float, float], ...]:
    """Return (lowest, highest) of each channel from the results of `plan_ranges`; empty for an image without pixels.

    >>> collect_ranges([[[0.5, 2.0]], [[-1.0, 1.0]]])
    ((-1.0, 2.0),)
    """
    channels = zip(*results, strict=True)
    return tuple((min(low for low, _ in c), max(high for _, high in c)) for c in channels)
