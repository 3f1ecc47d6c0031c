"""The kind of image that a model knows: three shares of an image, and the intervals in which it has seen them.

A network gives fields for any image, also for one of a kind that it has never seen, and these fields become hundreds of
objects all the same. Three shares tell the difference, without any truth:

    brightness   where the median pixel lies between the two percentiles that become 0 and 1, per channel: near 0 on a
                 dark background, near 1 on a bright one, between them in phase contrast
    undecided    of the background, the share in which the distance is no longer what was taught there
    short_flow   of the foreground, the share in which the flow is shorter than 0.5 (it was taught with length 1)

Rule: an image is of an unknown kind where at least two of the three lie outside the model's intervals. One alone can be
an unusual image of a known kind: crowded cells raise the brightness, a blurred image shortens the flow.

The median comes from the histogram that every segmentation counts anyway. The others are quotients of four counts of
pixels, which blending adds up block by block: sums of integers, the same however the image was cut and on every engine.
The intervals are those of example images, made wider (`kind_of`), and belong to the model's configuration.

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

_SHORT = 0.5
"""Length of flow, of 1."""
_DECIDED = 0.5
"""px above the distance taught in background."""
_NEEDED = 2
"""Statistics outside their intervals that make an image unknown."""
_ROWS = 64
"""Pixels are counted by strips of so many rows: what is held beside the fields stays small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a model knows, in its configuration; shares from 0 to 1, both ends known.

    Attributes:
        brightness: an interval for each channel.
        undecided, short_flow: see the module.
        images: examples that the intervals come from.
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
        """From a model's threshold and its distance in background, for fields seen at a scale.

        >>> FieldLevels.of(-2.0, -5.0, 1.0).decided
        -4.5
        """
        return cls(threshold=threshold / scale, decided=(outside + _DECIDED) / scale)


def count_fields(fields: npt.NDArray[np.float16], levels: FieldLevels) -> dict[str, int]:
    """Pixels of a block by what its fields say.

    Args:
        fields: (3, y, x): flow y, flow x, distance.

    Returns:
        foreground, and of it short_flow; background, and of it undecided. The sum over blocks (`add_counts`) is the
        count of the whole.

    >>> count_fields(np.array([[[0, 1]], [[0, 0]], [[-3, 2]]], np.float16), FieldLevels(threshold=-2, decided=-4.5))
    {'foreground': 1, 'short_flow': 0, 'background': 1, 'undecided': 1}
    """
    return add_counts(_count_strip(fields[:, row : row + _ROWS], levels) for row in range(0, fields.shape[1], _ROWS))


def _count_strip(fields: npt.NDArray[np.float16], levels: FieldLevels) -> dict[str, int]:
    distance = fields[2].astype(np.float32)
    foreground = distance > np.float32(levels.threshold)
    flow_y, flow_x = (flow[foreground].astype(np.float32) for flow in fields[:2])
    inside = int(flow_y.size)
    return {
        "foreground": inside,
        "short_flow": int(np.count_nonzero(flow_y * flow_y + flow_x * flow_x < np.float32(_SHORT**2))),
        "background": distance.size - inside,
        "undecided": int(np.count_nonzero((distance > np.float32(levels.decided)) & ~foreground)),
    }


def add_counts(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of counts; zeros for none."""
    total = dict.fromkeys(("foreground", "short_flow", "background", "undecided"), 0)
    for part in parts:
        for name in total:
            total[name] += part[name]
    return total


def statistics_of(brightness: Sequence[float], counts: Mapping[str, int]) -> Statistics:
    """The shares; 0 where there is no foreground, or no background, to have a share of."""
    return Statistics(
        brightness=tuple(round(value, 4) for value in brightness),
        undecided=round(counts["undecided"] / max(1, counts["background"]), 4),
        short_flow=round(counts["short_flow"] / max(1, counts["foreground"]), 4),
    )


def kind_of(examples: Sequence[Statistics], *, wider: float, least: float) -> Kind:
    """The intervals of example images, each wider on both sides by a part of its length.

    Args:
        examples: at least one, all with the same channels.
        wider: that part.
        least: by at least so much.
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
    """Why an image is of an unknown kind, in plain words; empty where it is of a known one.

    Names the statistic that lies farthest outside, in lengths of its interval. Channels that the image lacks are not
    looked at; those that deviate count as one statistic.

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
    """How far a value lies outside of an interval, in lengths of it (0 inside); and both."""
    low, high = known
    return max(low - value, value - high, 0.0) / max(high - low, 0.01), value, known
