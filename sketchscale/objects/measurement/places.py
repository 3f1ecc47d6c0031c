"""Places of all objects of an image: what the driver keeps in memory, some 70 bytes per object.

Between measuring blocks and writing the table all objects must be known: to assign their crops to blocks, to find their
neighbours, and to split the table into runs of labels. That takes labels, boxes and centroids, not features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sketchscale.engine.base import Plan
from sketchscale.geometry import Tile
from sketchscale.objects.measurement.partials import AXES, Partial, empty_partial, fold_partials
from sketchscale.objects.measurement.plan import measure_config_of, read_partials

__all__ = ["Places", "collect_places"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The places of n objects, ordered by label.

    Attributes:
        label: (n,) ids.
        centers: (n, d) centroids, px.
        size: (n,) pixels.
        starts, stops: (d, n) half-open boxes.
        ranges: lowest and highest intensity of each channel over all objects; (0, 0) if there is none.
        blocks: first and last label of each task of the plan that measured them; (1, 0) if it has none.
    """

    label: npt.NDArray[np.uint64]
    centers: npt.NDArray[np.float64]
    size: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int64]
    ranges: tuple[tuple[float, float], ...]
    blocks: tuple[tuple[int, int], ...]


def collect_places(plan: Plan[Tile]) -> Places:
    """Return the places of all objects.

    Args:
        plan: of `plan_measure`, after it has run.

    Raises:
        InputError: a partial is absent or damaged.
    """
    blocks: list[tuple[int, int]] = []
    config = measure_config_of(plan)
    ranges = [(np.inf, -np.inf)] * len(config.channels)

    def parts() -> Iterator[Partial]:
        for part in read_partials(plan):
            blocks.append((int(part.label[0]), int(part.label[-1])) if len(part.label) else (1, 0))
            ranges[:] = [
                (min(low, float(lows.min(initial=np.inf))), max(high, float(highs.max(initial=-np.inf))))
                for (low, high), lows, highs in zip(ranges, part.lows, part.highs, strict=True)
            ]
            yield _places_in(part)

    axes = len(config.shape)
    total = fold_partials(parts(), _places_in(empty_partial(0, axes)))
    return Places(
        label=total.label,
        centers=np.stack([total.sum(axis) / total.sum("size") for axis in AXES[-axes:]], axis=1),
        size=total.sum("size"),
        starts=total.starts,
        stops=total.stops,
        ranges=tuple(r if r[0] <= r[1] else (0.0, 0.0) for r in ranges),
        blocks=tuple(blocks),
    )


def _places_in(part: Partial) -> Partial:
    """Return size, centroid and box alone: the first rows of the sums, no channel."""
    return Partial(
        label=part.label,
        sums=part.sums[: len(part.starts) + 1],
        starts=part.starts,
        stops=part.stops,
        codes=part.codes[:0],
        lows=part.lows[:0],
        highs=part.highs[:0],
    )
