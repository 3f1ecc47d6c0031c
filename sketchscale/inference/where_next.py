"""Choose the places whose annotation would improve a model most: uncertain, and unlike the annotated places.

    box ─▶ four flips through the network ─▶ uncertainty: a number in [0, 1]
                                          └▶ look: some numbers about brightness, texture and predicted objects
    boxes ─▶ choose_places: again and again the box of largest uncertainty x novelty

*Uncertainty.* A reliable network gives the same result for a mirrored tile. A pixel is uncertain where the four flips
disagree on whether it is foreground, or, inside objects, where the mean of the four flows is shorter than 1, because
they point apart or are short themselves. The uncertainty of a box is the mean over its pixels.

*Novelty.* The distance of a box's look from the nearest look among the annotated boxes and those chosen before
(k-centre), in units of the median of that distance over all candidates at the start, and at most 1, because otherwise
dust would always be chosen. Without annotation all places are equally new at first.

Source: ours; k-centre greedy choice: Sener & Savarese 2018.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError

__all__ = ["FLIPS", "Choice", "choose_places", "flip_tile", "look_of", "mean_fields", "uncertainty_of", "unflip_fields"]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

FLIPS = ((False, False), (True, False), (False, True), (True, True))
"""Along y, along x."""

_PERCENTILES = (5, 50, 95, 99)


def flip_tile(tile: npt.NDArray[Any], flip: tuple[bool, bool]) -> npt.NDArray[Any]:
    """Mirror the last two axes."""
    return tile[..., :: -1 if flip[0] else 1, :: -1 if flip[1] else 1]


def unflip_fields(fields: npt.NDArray[np.floating], flip: tuple[bool, bool]) -> Float32:
    """Return the fields (3, y, x) of a mirrored tile as fields of the tile: mirrored back, mirrored flow negated.

    >>> unflip_fields(np.ones((3, 1, 2)), (True, False))[:, 0, 0].tolist()
    [-1.0, 1.0, 1.0]
    """
    signs = np.array([-1 if flip[0] else 1, -1 if flip[1] else 1, 1], np.float32)
    return np.asarray(flip_tile(fields, flip) * signs[:, None, None], np.float32)


def mean_fields(views: npt.NDArray[np.floating]) -> Float32:
    """Return the mean of (flips, 3, y, x), with the flow of each flip cut to length 1."""
    flow = views[:, :2].astype(np.float32)
    length = np.sqrt((flow**2).sum(1, keepdims=True))
    fields = np.concatenate([flow / np.maximum(1, length), views[:, 2:].astype(np.float32)], axis=1)
    return np.asarray(fields.mean(0), np.float32)


def uncertainty_of(views: npt.NDArray[np.floating], threshold: float) -> Float32:
    """Return how uncertain the network is about each pixel.

    Args:
        views: (flips, 3, y, x), fields of one place by the flips; flow of length 1, distance in px.
        threshold: foreground is where distance > threshold, px.

    Returns:
        (y, x) in [0, 1]: the larger of 4 p (1 - p) and p (1 - |v|), with p the share of flips in which a pixel is
        foreground, and v the mean flow.

    >>> views = np.zeros((4, 3, 1, 1))
    >>> views[:2, 2] = 5
    >>> uncertainty_of(views, 0.0).item()
    1.0
    """
    share = (views[:, 2] > threshold).mean(0, dtype=np.float32)
    length = np.sqrt((mean_fields(views)[:2] ** 2).sum(0))
    return np.asarray(np.maximum(4 * share * (1 - share), share * (1 - length)), np.float32)


def look_of(pixels: Float32, fields: Float32, threshold: float) -> tuple[float, ...]:
    """Describe a box by numbers that can be compared between boxes of one model and one size.

    Args:
        pixels: (c, y, x), normalised.
        fields: (3, y, x), see `mean_fields`.

    Returns:
        Per channel four percentiles and two numbers of texture (mean absolute difference of pixels 1 and 4 px apart);
        then the share of foreground, its mean distance, its outline per area, and its mean flow length.
    """
    look: list[float] = []
    for channel in np.clip(pixels, -1, 3):
        look += np.percentile(channel, _PERCENTILES).tolist()
        for step in (1, 4):
            steps = [np.abs(channel[step:] - channel[:-step]), np.abs(channel[:, step:] - channel[:, :-step])]
            look.append(float(np.mean([s.mean() for s in steps if s.size] or [0.0])))
    inside = fields[2] > threshold
    area = int(inside.sum())
    outline = sum(int((np.diff(inside, axis=axis) != 0).sum()) for axis in (0, 1))
    length = np.sqrt((fields[:2] ** 2).sum(0))
    depth, flow = (float(values[inside].mean()) if area else 0.0 for values in (fields[2] - threshold, length))
    look += [area / inside.size, float(np.log1p(max(0.0, depth))), outline / max(1, area), flow]
    return tuple(round(float(value), 6) for value in look)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One chosen box.

    Attributes:
        index: among the candidates.
        score: uncertainty x novelty when it was chosen; falls from choice to choice.
        novelty: in [0, 1]; 1 is at least as far from the annotated boxes as the typical candidate.
    """

    index: int
    score: float
    novelty: float


def choose_places(
    uncertainty: Sequence[float], looks: Sequence[Sequence[float]], known: Sequence[Sequence[float]], n: int
) -> tuple[Choice, ...]:
    """Return the n best boxes, best first.

    Args:
        uncertainty, looks: of the candidates; may be empty.
        known: looks of annotated boxes; may be empty.
        n: largest number of boxes. On ties the earlier candidate wins.

    Raises:
        InputError: n is less than 1.

    >>> [c.index for c in choose_places([0.9, 0.8, 0.1], [[0], [0], [9]], [[1]], 2)]
    [0, 2]
    """
    if n < 1:
        raise InputError.of(found=f"{n} places", expected="1 or more", fix="write --n 10")
    if not len(looks):
        return ()
    values = np.asarray(looks, np.float64)
    spread = values.std(0)
    scale = np.where(spread > 1e-9, spread, np.inf)  # a number that does not vary has no influence
    annotated = np.asarray(known, np.float64).reshape(-1, values.shape[1])
    return tuple(_choices(np.asarray(uncertainty, np.float64), values / scale, annotated / scale, min(n, len(looks))))


def _choices(uncertainty: Float64, looks: Float64, known: Float64, n: int) -> Iterator[Choice]:
    """Yield the choices one by one."""
    nearest = np.full(len(looks), np.inf)
    for look in known:
        nearest = np.minimum(nearest, _distance(looks, look))
    typical = float(np.median(nearest if len(known) else _distance(looks, looks.mean(0)))) or 1.0
    left = np.ones(len(looks), bool)
    for _ in range(n):
        novelty = np.minimum(1.0, nearest / typical)
        score = np.where(left, uncertainty * novelty, -1.0)
        best = int(np.argmax(score))
        left[best] = False
        yield Choice(index=best, score=float(score[best]), novelty=float(novelty[best]))
        nearest = np.minimum(nearest, _distance(looks, looks[best]))


def _distance(looks: Float64, to: Float64) -> Float64:
    distance: Float64 = np.sqrt(((looks - to) ** 2).sum(1))
    return distance
