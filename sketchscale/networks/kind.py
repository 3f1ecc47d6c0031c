"""Detect images of a kind that a model does not know: three statistics of an image, and the model's intervals for them.

A network gives fields for any image, also for one of a kind that it has never seen, and these fields still become
hundreds of objects. Three shares reveal such an image, without any annotation:

    brightness   where the median pixel lies between the two percentiles that become 0 and 1, per channel: near 0 on a
                 dark background, near 1 on a bright one, between them in phase contrast
    undecided    the share of the background in which the distance differs from its training target there
    short_flow   the share of the foreground in which the flow is shorter than 0.5 (its training target has length 1)

Rule: an image is of an unknown kind where at least two of the three lie outside the model's intervals. One alone can be
an unusual image of a known kind: crowded cells raise the brightness, a blurred image shortens the flow.

The median comes from the histogram that every segmentation counts anyway. The others are quotients of four counts of
pixels, which blending sums block by block: integers, the same for any blocks and on every engine. The intervals are
those of example images, made wider (`kind_of`), and belong to the model's configuration.

Source: ours. Figures: benchmarks/unknown_kinds.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pydantic

from sketchscale.errors import InputError

__all__ = ["FieldLevels", "Kind", "Statistics", "add_counts", "count_fields", "kind_of", "statistics_of", "unfamiliar"]

Interval = tuple[float, float]

_COUNTS = ("foreground", "short_flow", "background", "undecided")

_SHORT = 0.5
"""Flow below this length is short."""
_DECIDED = 0.5
"""px above the training target of the distance in background."""
_NEEDED = 2
"""Number of statistics outside their intervals that makes an image unknown."""
_ROWS = 64
"""Rows that are counted at once, which bounds the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """The kind of image that a model knows: intervals of shares from 0 to 1, ends included; see the module.

    Attributes:
        brightness: an interval for each channel.
        images: number of examples that the intervals come from.
    """

    __pydantic_config__ = pydantic.ConfigDict(extra="forbid")

    brightness: tuple[Interval, ...]
    undecided: Interval
    short_flow: Interval
    images: int

    def __post_init__(self) -> None:
        for low, high in (*self.brightness, self.undecided, self.short_flow):
            if not 0 <= low <= high <= 1:
                raise InputError.of(
                    found=f"the interval {low} to {high}", expected="shares from 0 to 1", fix="check it"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The three shares of an image; `brightness` has one for each channel."""

    brightness: tuple[float, ...]
    undecided: float
    short_flow: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldLevels:
    """Distances in stored fields, px: foreground is above `threshold`, decided background up to `decided`."""

    threshold: float
    decided: float

    @classmethod
    def of(cls, threshold: float, outside: float, scale: float) -> FieldLevels:
        """Return the levels for a model's threshold and its distance in background, at a scale.

        >>> FieldLevels.of(-2.0, -5.0, 1.0).decided
        -4.5
        """
        return cls(threshold=threshold / scale, decided=(outside + _DECIDED) / scale)


def count_fields(fields: npt.NDArray[np.float16], levels: FieldLevels) -> dict[str, int]:
    """Count the pixels of a block by their fields.

    Args:
        fields: (3, y, x): flow y, flow x, distance.

    Returns:
        foreground, and of it short_flow; background, and of it undecided. `add_counts` sums over blocks.

    >>> count_fields(np.array([[[0, 1]], [[0, 0]], [[-3, 2]]], np.float16), FieldLevels(threshold=-2, decided=-4.5))
    {'foreground': 1, 'short_flow': 0, 'background': 1, 'undecided': 1}
    """
    total = dict.fromkeys(_COUNTS, 0)
    for row in range(0, fields.shape[1], _ROWS):
        flow, distance = fields[:2, row : row + _ROWS], fields[2, row : row + _ROWS].astype(np.float32)
        foreground = distance > np.float32(levels.threshold)
        flow_y, flow_x = (component[foreground].astype(np.float32) for component in flow)
        total["foreground"] += int(flow_y.size)
        total["short_flow"] += int(np.count_nonzero(flow_y * flow_y + flow_x * flow_x < np.float32(_SHORT**2)))
        total["background"] += distance.size - int(flow_y.size)
        total["undecided"] += int(np.count_nonzero((distance > np.float32(levels.decided)) & ~foreground))
    return total


def add_counts(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the sum of counts; zeros without any."""
    counts = list(parts)
    return {name: sum(part[name] for part in counts) for name in _COUNTS}


def statistics_of(brightness: Sequence[float], counts: Mapping[str, int]) -> Statistics:
    """Return the shares of an image; 0 where there is no foreground, or no background."""
    return Statistics(
        brightness=tuple(round(value, 4) for value in brightness),
        undecided=round(counts["undecided"] / max(1, counts["background"]), 4),
        short_flow=round(counts["short_flow"] / max(1, counts["foreground"]), 4),
    )


def kind_of(examples: Sequence[Statistics], *, wider: float, least: float) -> Kind:
    """Return the intervals of example images, made wider on both sides.

    Args:
        examples: at least one, all with the same channels.
        wider: by this part of an interval's length.
        least: by at least this much.
    """

    def interval(values: Iterable[float]) -> Interval:
        found = sorted(values)
        more = max(least, wider * (found[-1] - found[0]))
        return round(max(0.0, found[0] - more), 4), round(min(1.0, found[-1] + more), 4)

    return Kind(
        brightness=tuple(interval(values) for values in zip(*(one.brightness for one in examples), strict=True)),
        undecided=interval(one.undecided for one in examples),
        short_flow=interval(one.short_flow for one in examples),
        images=len(examples),
    )


def unfamiliar(found: Statistics, kind: Kind) -> str:
    """Return in plain words why an image is of an unknown kind; empty where the kind is known.

    Names the statistic that lies farthest outside, in lengths of its interval. Channels that the image lacks are
    ignored; the others count as one statistic.

    >>> kind = Kind(brightness=((0.0, 0.2),), undecided=(0.0, 0.3), short_flow=(0.0, 0.2), images=9)
    >>> unfamiliar(Statistics(brightness=(0.9,), undecided=0.2, short_flow=0.1), kind)
    ''
    >>> unfamiliar(Statistics(brightness=(0.9,), undecided=0.5, short_flow=0.1), kind)
    'its median pixel lies at 90 % of the range from dark to bright (known: 0 to 20 %)'
    """
    channels = [_row(value, known) for value, known in zip(found.brightness, kind.brightness, strict=False)]
    rows = [
        (*max(channels), "its median pixel lies at {:.0f} % of the range from dark to bright"),
        (*_row(found.undecided, kind.undecided), "the network is undecided in {:.0f} % of the background"),
        (*_row(found.short_flow, kind.short_flow), "the flow is short in {:.0f} % of the foreground"),
    ]
    if sum(beyond > 0 for beyond, *_ in rows) < _NEEDED:
        return ""
    _, value, (low, high), words = max(rows)
    return f"{words.format(100 * value)} (known: {100 * low:.0f} to {100 * high:.0f} %)"


def _row(value: float, known: Interval) -> tuple[float, float, Interval]:
    """Return how far a value lies outside an interval, in lengths of it (0 inside); then the value and the interval."""
    low, high = known
    return max(low - value, value - high, 0.0) / max(high - low, 0.01), value, known
