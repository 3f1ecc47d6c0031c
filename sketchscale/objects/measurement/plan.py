"""Tasks that measure objects: one block each, every chunk decoded about once.

    labels, image ──measure──▶ partials/<block>.npz ──read_partials────▶ table        (see `stream`)
    image ─────────ranges────▶ lowest and highest value                               (float images only)

A task writes its partial as one small object and returns counts; collecting reads them in any order, because partials
add up exactly (`partials`). Blocks are a matter of memory and speed alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.engine.base import Json, Plan
from sketchscale.errors import InputError
from sketchscale.geometry import Tile, tile_cover
from sketchscale.io.parts import get_arrays, put_arrays
from sketchscale.io.planes import PlaneRef, VolumeRef, read_plane
from sketchscale.objects.measurement.features import MeasureConfig
from sketchscale.objects.measurement.partials import Partial, fold_partials, is_exact, partial_objects
from sketchscale.objects.sources import LabelSource, label_shape, read_windows

__all__ = [
    "PartialsJob",
    "channel_count",
    "collect_partials",
    "collect_ranges",
    "measure_config",
    "measure_config_of",
    "needs_ranges",
    "plan_measure",
    "plan_partials",
    "plan_ranges",
    "read_partials",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialsJob:
    """What every task of measuring a plane or a volume needs.

    Attributes:
        image: None measures geometry only.
        store, prefix: where partials go: `<prefix>/<block>.npz`.
        config: with `shape`, `channels` and `dtype`: a `MeasureConfig`, or a `SolidConfig`.
        measure: labels of a block with a margin of 1, image, place of the first pixel and config to a `Partial`.
    """

    labels: LabelSource
    image: PlaneRef | VolumeRef | None
    store: str
    prefix: str
    config: Any
    measure: Callable[[npt.NDArray[Any], npt.NDArray[Any], tuple[int, ...], Any], Partial]


def measure_config(
    labels: LabelSource,
    plane: PlaneRef | None,
    *,
    ranges: Sequence[tuple[float, float]] = (),
    tile_stride: tuple[int, int] | None = None,
    features: Sequence[str] | None = None,
    texture_ranges: Sequence[tuple[float, float]] = (),
) -> MeasureConfig:
    """The configuration for measuring these labels on this plane.

    Args:
        plane: None measures geometry only.
        ranges: of `collect_ranges`; needed where `needs_ranges(plane)`.
        tile_stride: (y, x) distance of the lines of the network's tile grid, None when it is not known.
        features: names of FEATURES or of GROUPS, None for all.
        texture_ranges: of each channel; none takes those of the objects.

    Raises:
        InputError: labels and plane differ in shape, or ranges are missing.
    """
    shape = label_shape(labels)
    if plane is not None and plane.shape != shape:
        raise InputError.of(
            found=f"labels of {shape}, an image of {plane.shape}",
            expected="one shape (y, x)",
            fix="measure the level that was segmented",
        )
    return MeasureConfig(
        shape=shape,
        channels=plane.channels if plane else (),
        dtype=plane.dtype if plane else "uint8",
        ranges=tuple(ranges),
        spacing=plane.spacing_um if plane else None,
        tile_stride=tile_stride,
        features=tuple(features) if features is not None else None,
        texture_ranges=tuple(texture_ranges),
    )


def plan_measure(
    labels: LabelSource,
    plane: PlaneRef | None,
    config: MeasureConfig,
    *,
    store: str,
    block: tuple[int, int],
    prefix: str = "measure",
) -> Plan[Tile]:
    """Measure every object of a plane, block by block.

    Args:
        config: of `measure_config`.
        store, prefix: where partials go: `<prefix>/<block>.npz`; see `stream.stream_features`.
        block: (y, x) in pixels; best a whole number of chunks of labels and image.

    Returns:
        A plan whose tasks return `{"objects": n}`: objects with a pixel or neighbouring one in the block.
    """
    job = PartialsJob(labels=labels, image=plane, store=store, prefix=prefix, config=config, measure=_of_plane)
    return plan_partials(job, block)


def _of_plane(
    labels: npt.NDArray[Any], image: npt.NDArray[Any], origin: tuple[int, ...], config: MeasureConfig
) -> Partial:
    return partial_objects(labels, image, (origin[0], origin[1]), config.coding)


def plan_partials(job: PartialsJob, block: tuple[int, ...]) -> Plan[Tile]:
    """Measure every object of a plane or a volume, block by block; the tasks return `{"objects": n}`."""
    pixels = math.prod(min(b, n) + 2 for b, n in zip(block, job.config.shape, strict=True))
    depth = np.dtype(job.config.dtype).itemsize * len(job.config.channels)
    return Plan(
        stage="measure",
        fn=_measure_block,
        tasks=tile_cover(job.config.shape, block),
        config=job,
        task_bytes=pixels * (2 * depth + 30),
    )


def _measure_block(tile: Tile, job: PartialsJob) -> Json:
    write = tile.write
    labels = read_windows(job.labels, write)
    image = np.empty((0, *write.shape), np.uint8) if job.image is None else read_plane(job.image, write)
    part = job.measure(labels, image, write.start, job.config)
    put_arrays(job.store, f"{job.prefix}/{tile.key}.npz", part.as_arrays())
    return {"objects": len(part.label)}


def read_partials(plan: Plan[Any], tasks: Iterable[Tile] | None = None) -> Iterator[Partial]:
    """What the tasks of a plan that has run know, one after the other; of all tasks when None.

    Args:
        plan: whose tasks wrote a `Partial` each, and whose job has `store` and `prefix`.

    Raises:
        InputError: a partial is absent or damaged.
    """
    for task in plan.tasks if tasks is None else tasks:
        yield Partial(**get_arrays(plan.config.store, f"{plan.config.prefix}/{task.key}.npz"))


def collect_partials(plan: Plan[Any], empty: Partial) -> Partial:
    """What all blocks of a plan know together; partials are read a few at a time.

    Args:
        plan: whose tasks wrote a `Partial` each, and whose job has `store` and `prefix`.
        empty: a partial of no object, which is the answer where there is no block.

    Raises:
        InputError: a partial is absent or damaged.
    """
    return fold_partials(read_partials(plan), empty)


def measure_config_of(plan: Plan[Tile]) -> MeasureConfig:
    """What a `plan_measure` measures."""
    config: MeasureConfig = plan.config.config
    return config


def channel_count(plan: Plan[Tile]) -> int:
    """Channels of the plane that a `plan_measure` reads."""
    return len(measure_config_of(plan).channels)


def needs_ranges(plane: PlaneRef | VolumeRef) -> bool:
    """Whether measuring this plane needs `plan_ranges` first: floats and 64-bit integers."""
    return not is_exact(plane.dtype)


def plan_ranges(plane: PlaneRef | VolumeRef, block: tuple[int, ...]) -> Plan[Tile]:
    """Lowest and highest value of each channel; the tasks return them, see `collect_ranges`."""
    depth = np.dtype(plane.dtype).itemsize * len(plane.channels)
    return Plan(
        stage="ranges",
        fn=_range_of_block,
        tasks=tile_cover(plane.shape, block),
        config=plane,
        task_bytes=3 * math.prod(block) * depth,
    )


def _range_of_block(tile: Tile, plane: PlaneRef | VolumeRef) -> Json:
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
    """(lowest, highest) of each channel, from the results of `plan_ranges`; none for an image without pixels.

    >>> collect_ranges([[[0.5, 2.0]], [[-1.0, 1.0]]])
    ((-1.0, 2.0),)
    """
    channels = zip(*results, strict=True)
    return tuple((min(low for low, _ in c), max(high for _, high in c)) for c in channels)
