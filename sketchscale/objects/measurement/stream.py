"""From measured blocks to the table, one run of labels at a time, so that memory holds only the places of all objects.

    1 plan_measure   labels, image ─▶ partials/<block>        sums, every block
    2 collect_places partials ─▶ labels, boxes, centroids     driver, some 70 B per object
    3 plan_crops     labels, image ─▶ values/<block>          whole objects, each in one block
    4 neighbours     centroids ─▶ distances                   driver, one search tree
    5 stream_features: for each run of ROWS labels, in order: read the partials and crops of blocks with such labels,
      combine them, write the rows

A block is read again for every run that contains labels of it: once or twice if ids are in raster order, as labelling
gives them; in every run if ids have no order, so that a table of n rows then costs n / ROWS readings of all sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow

from sketchscale.engine.base import Plan
from sketchscale.geometry import Tile
from sketchscale.io.ome_zarr.label_sources import LabelSource
from sketchscale.io.ome_zarr.planes import PixelsRef
from sketchscale.io.ome_zarr.table import batches_of
from sketchscale.objects.measurement.crops import CropTask, assign_crops, plan_crops, read_crops
from sketchscale.objects.measurement.features import MeasureConfig, feature_table
from sketchscale.objects.measurement.neighbours import find_neighbours
from sketchscale.objects.measurement.partials import Partial, combine_partials, empty_partial
from sketchscale.objects.measurement.places import Places, collect_places
from sketchscale.objects.measurement.plan import measure_config_of, plan_measure, read_partials
from sketchscale.objects.measurement.totals import CHANNEL_VALUES, OBJECT_VALUES, Crops

__all__ = ["ROWS", "measure_objects", "stream_features"]

ROWS = 1 << 16
"""Rows that are finished together, some 2 kB each."""


def measure_objects(
    labels: LabelSource,
    plane: PixelsRef | None,
    config: MeasureConfig,
    run: Callable[[Plan[Any]], object],
    *,
    store: str,
    block: tuple[int, ...],
) -> Iterator[pyarrow.RecordBatch]:
    """Run all steps and yield the rows of the table, ordered by label; at least one batch, which may be empty.

    Args:
        labels, plane, config, block: as for `plan_measure`.
        run: runs a plan to its end.
        store: scratch space; the caller clears it after the last row.
    """
    plan = plan_measure(labels, plane, config, store=store, block=block)
    run(plan)
    places = collect_places(plan)
    crops = plan_crops(labels, plane, config, places, store=store, block=block)
    assign_crops(crops, places)
    run(crops)
    yield from stream_features(plan, places, crops)


def stream_features(
    plan: Plan[Tile], places: Places, crops: Plan[CropTask] | None = None
) -> Iterator[pyarrow.RecordBatch]:
    """Yield the rows of the table in order of label, ROWS at a time; at least one batch, which may be empty.

    Args:
        plan: of `plan_measure`, after it has run. places: of this plan.
        crops: of `plan_crops`, after it has run; None leaves out features that need crops or neighbours.

    Raises:
        InputError: a partial is absent or damaged.
    """
    config = measure_config_of(plan)
    empty = empty_partial(len(config.channels), len(config.shape))
    near = None
    if crops is not None and config.wants("neighbours"):
        near = find_neighbours(places.centers, places.size, spacing=config.spacing or (1.0,) * len(config.shape))
    for first in range(0, max(1, len(places.label)), ROWS):
        rows = slice(first, first + ROWS)
        label = places.label[rows]
        total = combine_partials([empty, *_partials_of(plan, places, label)])
        values = None if crops is None else _crops_of(crops, label, len(config.channels))
        table = feature_table(total, config, values, None if near is None else near.take(rows))
        yield from batches_of(table.combine_chunks())


def _partials_of(plan: Plan[Tile], places: Places, label: npt.NDArray[np.uint64]) -> Iterable[Partial]:
    """Yield the partials of labels from the first to the last of a run."""
    if not len(label):
        return
    first, last = int(label[0]), int(label[-1])
    tasks = [t for t, (a, b) in zip(plan.tasks, places.blocks, strict=True) if a <= b and a <= last and first <= b]
    for part in read_partials(plan, tasks):
        begin, end = np.searchsorted(part.label, np.array([first, last + 1], np.uint64))
        yield part.take(slice(int(begin), int(end)))


def _crops_of(plan: Plan[CropTask], label: npt.NDArray[np.uint64], channels: int) -> Crops:
    """Return the values of a run of labels, in their order; NaN for objects that were not cropped."""
    values = np.full((len(OBJECT_VALUES), len(label)), np.nan)
    of_channels = np.full((channels, len(CHANNEL_VALUES), len(label)), np.nan)
    for task in plan.tasks:
        if len(label) and task.first <= label[-1] and label[0] <= task.last:
            crops = read_crops(plan, task)
            mine = (crops.label >= label[0]) & (crops.label <= label[-1])
            at = np.searchsorted(label, crops.label[mine])
            values[:, at] = crops.values[:, mine]
            of_channels[:, :, at] = crops.channels[:, :, mine]
    return Crops(label=label, values=values, channels=of_channels)
