"""Simulate strokes from full masks, as a person draws them; see simulate_mask for the papers' random masks.

`simulate_strokes` picks objects and draws

    ┌──────────────────────────┐
    │   ~~~~~~~     far background: thick strokes that avoid every object
    │        .---.             │
    │      /( === )\\  outline (1 px, on the pixels just outside), inside (brush), a stroke of near background
    │        '---'             │
    └──────────────────────────┘

`simulate_interior` draws no boundary at all: curves inside objects, or one dot in each, and background apart from them.
Each has the number of its object, as a person who draws in two cells knows that they differ.

Guarantee, tested: a simulated sketch is never wrong. Foreground pixels lie in the object they are assigned to,
background pixels in the background, boundary pixels within one pixel of a true boundary. Every candidate stroke is
checked against the truth where it is drawn, and shortened where it would err.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sketchscale.annotations.events import Point, Stroke
from sketchscale.annotations.painting import stroke_masks
from sketchscale.annotations.simulate_mask import require_labels
from sketchscale.annotations.simulate_outlines import Brush, contours, drawn_outline, exact_outline, moved
from sketchscale.annotations.sketch import Sketch
from sketchscale.errors import InputError, UnknownNameError

__all__ = [
    "INTERIOR_STYLES",
    "STYLES",
    "Style",
    "pick_objects",
    "simulate_interior",
    "simulate_strokes",
    "simulated_sketch",
    "strokes_on_object",
]

STYLES = ("fill", "half", "scribble")
"""How much of an outlined object is painted: all, the half on one side of a line, or a thin line along its middle."""

INTERIOR_STYLES = ("interior", "points")
"""What is drawn where no outline is: curves of random length inside objects, or one dot in each."""

Style = Literal["fill", "half", "scribble"]
InteriorStyle = Literal["interior", "points"]
_Labels = npt.NDArray[np.integer[Any]]

_PART_PX = 170
_CURVE_STEP = 1.5


def simulate_strokes(
    labels: _Labels,
    *,
    n_objects: int = 20,
    seed: int = 0,
    style: Style = "fill",
    image: str = "",
    brush: Brush | None = None,
) -> Sketch:
    """Return strokes as a person draws them on about `n_objects` objects and on the background.

    Objects are taken at random together with the neighbours they touch, since a person shows where objects touch.
    Each gets a closed outline (open where the image cuts the object), paint inside, and a stroke of background nearby;
    thick strokes run over the rest of the background.

    Args:
        labels: true object ids (y, x), 0 background. Fewer than n_objects: all of them.
        n_objects: how many to outline; at least 1.
        seed: of every choice; the same seed draws the same strokes.
        style: one of STYLES.
        image: name put on the events.
        brush: with which outlines are drawn; None for lines on the pixels just outside the objects.

    Raises:
        InputError: `labels` is not a label image with at least one object, or n_objects < 1.

    >>> truth = np.zeros((40, 40), np.uint32)
    >>> truth[10:20, 10:22] = 1
    >>> simulate_strokes(truth, n_objects=1).summary().objects
    1
    """
    _require_objects(labels, n_objects)
    if style not in STYLES:
        raise UnknownNameError.among("style", style, STYLES)
    hand = _Hand(truth=labels, rng=np.random.default_rng(seed))
    strokes: list[Stroke] = []
    for k in pick_objects(labels, n_objects, hand.rng):
        strokes += _on_object(hand, k, style, brush)
    return simulated_sketch([*strokes, *_far_background(hand)], labels, image)


def simulate_interior(
    labels: _Labels, *, n_objects: int = 20, seed: int = 0, style: InteriorStyle = "interior", image: str = ""
) -> Sketch:
    """Return a sketch without any boundary, on about `n_objects` objects and on the background.

    Args:
        labels, n_objects, seed, image: as of `simulate_strokes`, which takes the same objects.
        style: `interior` draws in each object one smooth curve, whose length is 0.3 to 1.5 times the object's
            diameter, and the far background strokes of `simulate_strokes`; `points` one dot in the inner half of each
            object, and as many dots at random places of the background.

    Raises:
        InputError: see `simulate_strokes`.

    >>> truth = np.zeros((40, 40), np.uint32)
    >>> truth[10:20, 10:22] = 1
    >>> simulate_interior(truth, n_objects=1, style="points").summary().has_boundary_information
    False
    """
    _require_objects(labels, n_objects)
    if style not in INTERIOR_STYLES:
        raise UnknownNameError.among("style", style, INTERIOR_STYLES)
    hand = _Hand(truth=labels, rng=np.random.default_rng(seed))
    draw, ground = (_curve, _far_background(hand)) if style == "interior" else (_dot, _dots(hand, n_objects))
    picked = pick_objects(labels, n_objects, hand.rng)
    inside = [dataclasses.replace(s, object=n) for n, k in enumerate(picked, start=1) for s in draw(hand, k)]
    return simulated_sketch([*inside, *ground], labels, image)


def strokes_on_object(truth: _Labels, k: int, *, style: Style, rng: np.random.Generator) -> list[Stroke]:
    """Return outline, paint and background of one object, and strokes over the rest of the background.

    Args:
        truth: (y, x), the object is in it.
    """
    hand = _Hand(truth=truth, rng=rng)
    return [*_on_object(hand, k, style), *_far_background(hand)]


def _on_object(hand: _Hand, k: int, style: Style, brush: Brush | None = None) -> Iterator[Stroke]:
    wide = 0.0 if brush is None else brush.radius_px + brush.jitter_px
    origin, inside = _window(hand.truth, k, margin=8 + math.ceil(wide))
    if brush is None:
        yield from exact_outline(inside, origin)
    else:
        yield from drawn_outline(hand.truth, inside, origin, brush, hand.rng)
    yield from _paint_inside(hand, inside, origin, k, style)
    yield from _near_background(hand, inside, origin, wide)


def simulated_sketch(strokes: Sequence[Stroke], labels: _Labels, image: str) -> Sketch:
    """Return the sketch of these strokes on the image of a truth."""
    events = tuple(
        dataclasses.replace(stroke, id=f"s{number:05d}", user="simulated", image=image)
        for number, stroke in enumerate(strokes)
    )
    return Sketch(shape=labels.shape, events=events, image=image)


def _require_objects(labels: _Labels, n_objects: int) -> None:
    require_labels(labels)
    if n_objects < 1 or not labels.any():
        raise InputError.of(
            found=f"{n_objects} objects asked for, {len(np.unique(labels[labels > 0]))} in the truth",
            expected="at least one",
            fix="give a label image with objects",
        )


@dataclass(frozen=True, kw_only=True)
class _Hand:
    """The truth that the drawing person sees, and the random numbers of an unsteady hand."""

    truth: _Labels
    rng: np.random.Generator

    def is_right(self, points: Sequence[Point], radius: float, wanted: int) -> bool:
        """Return whether a stroke covers only pixels of the wanted object (0: background)."""
        stroke = Stroke(points=tuple(points), radius_px=radius, label="background")
        shape = (self.truth.shape[0], self.truth.shape[1])
        return all((self.truth[box.slices][mask] == wanted).all() for box, mask in stroke_masks(stroke, shape))

    def right_parts(self, points: Sequence[Point], radius: float, label: str, wanted: int) -> Iterator[Stroke]:
        """Yield the polyline as strokes, without segments that would cover anything but the wanted object."""
        part: list[Point] = []
        for a, b in itertools.pairwise(points):
            if not self.is_right((a, b), radius, wanted):
                yield from _stroke(part, radius, label)
                part = []
            else:
                part = [*(part or [a]), b]
        yield from _stroke(part, radius, label)


def _stroke(points: Sequence[Point], radius: float, label: str) -> Iterator[Stroke]:
    if points:
        yield Stroke(points=tuple(points), radius_px=radius, label=label)


def pick_objects(labels: _Labels, n: int, rng: np.random.Generator) -> list[int]:
    """Return the ids of n objects: random ones, each followed by the neighbours that it touches."""
    touching = _touching(labels)
    picked: dict[int, None] = {}
    for k in rng.permutation(np.unique(labels[labels > 0])).tolist():
        picked |= dict.fromkeys([k, *sorted(touching.get(k, ()))])
    return list(picked)[:n]


def _touching(labels: _Labels) -> dict[int, set[int]]:
    touching: dict[int, set[int]] = {}
    for swept in (np.moveaxis(labels, axis, 0) for axis in range(labels.ndim)):
        a, b = swept[1:], swept[:-1]
        meets = (a != b) & (a > 0) & (b > 0)
        for p, q in np.unique(np.stack([a[meets], b[meets]], axis=1), axis=0).tolist():
            touching.setdefault(p, set()).add(q)
            touching.setdefault(q, set()).add(p)
    return touching


def _window(labels: _Labels, k: int, margin: int) -> tuple[tuple[int, int], npt.NDArray[np.bool_]]:
    """Return where the object's grown bounding box starts, and its mask in this box."""
    y, x = np.nonzero(labels == k)
    top, left = max(0, int(y.min()) - margin), max(0, int(x.min()) - margin)
    return (top, left), labels[top : int(y.max()) + margin + 1, left : int(x.max()) + margin + 1] == k


def _paint_inside(
    hand: _Hand, inside: npt.NDArray[np.bool_], origin: tuple[int, int], k: int, style: Style
) -> Iterator[Stroke]:
    wanted, depth = inside, _depth(inside)
    # A brush thinner than a third of the object, and of at most 2 px so that corners are reached.
    radius = float(np.clip(math.floor(depth.max() / 3) if not inside.all() else 2.0, 0.5, 2.0))
    if style == "half":
        angle = hand.rng.uniform(0, 2 * math.pi)
        y, x = np.indices(inside.shape)
        at = np.argwhere(inside).mean(axis=0)
        wanted = inside & ((y - at[0]) * math.sin(angle) + (x - at[1]) * math.cos(angle) >= 0)
    if style == "scribble":
        wanted, radius = inside & (depth >= 0.7 * depth.max()), 0.5
    for rows in _zigzags(wanted & (depth > radius)):
        yield from hand.right_parts(moved(rows, origin), radius, "foreground", k)


def _depth(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the distance of each pixel to the nearest one outside; pixels beyond the window count as inside."""
    if inside.all():
        return np.full(inside.shape, np.inf)
    depth: npt.NDArray[np.float64] = ndimage.distance_transform_edt(inside)
    return depth


def _zigzags(reachable: npt.NDArray[np.bool_]) -> Iterator[list[Point]]:
    """Yield lines back and forth over the rows of a mask; a run of a row far from the last one starts a new line."""
    line: list[Point] = []
    for y in range(reachable.shape[0]):
        edges = np.flatnonzero(np.diff(np.pad(reachable[y].astype(np.int8), 1)))
        for start, stop in zip(edges[::2].tolist(), (edges[1::2] - 1).tolist(), strict=True):
            ends: list[Point] = [(y, start), (y, stop)]
            if line and abs(line[-1][1] - stop) < abs(line[-1][1] - start):
                ends.reverse()
            if line and math.dist(line[-1], ends[0]) > 3:
                yield line
                line = []
            line += ends
    if line:
        yield line


def _curve(hand: _Hand, k: int) -> Iterator[Stroke]:
    """Yield the longest correct part of a random walk in small steps that turns gradually and away from the edge."""
    origin, inside = _window(hand.truth, k, margin=1)
    depth = _depth(inside)
    room = np.argwhere(inside & (depth > min(1.5, 0.6 * depth.max())))
    at = room[hand.rng.integers(len(room))].astype(np.float64)
    length = hand.rng.uniform(0.3, 1.5) * math.sqrt(4 / math.pi * inside.sum())
    angle, points = hand.rng.uniform(0, 2 * math.pi), [at]
    allowed = set(map(tuple, room.tolist()))
    for _ in range(round(length / _CURVE_STEP)):
        for turn in hand.rng.normal(0, 0.3) + np.array([0, 0.6, -0.6, 1.2, -1.2, 2.0, -2.0, math.pi]):
            step = at + _CURVE_STEP * np.array([math.sin(angle + turn), math.cos(angle + turn)])
            if tuple(np.rint(step).astype(int).tolist()) in allowed:
                at, angle = step, angle + float(turn)
                points.append(at)
                break
    parts = list(hand.right_parts(moved((np.round(np.array(points) * 8) / 8).tolist(), origin), 0.5, "foreground", k))
    yield from [max(parts, key=lambda part: len(part.points))] if parts else _dot(hand, k)


def _dot(hand: _Hand, k: int) -> Iterator[Stroke]:
    origin, inside = _window(hand.truth, k, margin=1)
    depth = _depth(inside)
    room = np.argwhere(inside & (depth >= 0.5 * depth.max()))
    yield Stroke(points=moved([room[hand.rng.integers(len(room))].tolist()], origin), radius_px=0.5, label="foreground")


def _dots(hand: _Hand, count: int) -> Iterator[Stroke]:
    """Yield dots on single pixels of the background."""
    room = np.argwhere(hand.truth == 0)
    for i in hand.rng.permutation(len(room))[:count]:
        y, x = room[i].tolist()
        yield Stroke(points=((float(y), float(x)),), radius_px=0.5, label="background")


def _near_background(
    hand: _Hand, inside: npt.NDArray[np.bool_], origin: tuple[int, int], wide: float
) -> Iterator[Stroke]:
    """Yield a part of a ring around the object, next to the outline, which reaches `wide` px beyond the usual one."""
    radius = 1.5
    away = ndimage.distance_transform_edt(~inside)
    for contour in contours(away, 1 + wide + radius + 0.5):
        n = len(contour)
        turned = np.roll(contour[: n - 1 or 1], -int(hand.rng.integers(n)), axis=0)
        arc = turned[: max(2, int(n * hand.rng.uniform(0.4, 0.8))) : 2]
        steady = np.round((arc + hand.rng.normal(0, 0.15, arc.shape)) * 8) / 8
        yield from hand.right_parts(_clipped(moved(steady.tolist(), origin), hand.truth.shape), radius, "background", 0)


def _clipped(points: Sequence[Point], shape: tuple[int, ...]) -> tuple[Point, ...]:
    return tuple((min(max(y, 0.0), shape[0] - 1.0), min(max(x, 0.0), shape[1] - 1.0)) for y, x in points)


def _far_background(hand: _Hand) -> Iterator[Stroke]:
    """Yield thick wavy strokes, one for each of nine parts of the image (16 to 36 of a large one) that has room."""
    free = _depth(hand.truth == 0)
    parts = [np.array_split(np.arange(n), min(6, max(3, math.ceil(n / _PART_PX)))) for n in free.shape]
    for rows, columns in itertools.product(*parts):
        part = free[np.ix_(rows, columns)]
        if not part.size:
            continue
        room = np.argwhere(part > min(3.0, max(1.0, float(np.quantile(part, 0.9)))))
        if room.size:
            y, x = room[hand.rng.integers(len(room))]
            yield from _wave(hand, (float(rows[y]), float(columns[x])), min(6.0, float(part[y, x]) - 0.5))


def _wave(hand: _Hand, start: Point, radius: float) -> Iterator[Stroke]:
    radius = max(0.5, math.floor(radius * 2) / 2)
    angle, points = hand.rng.uniform(0, 2 * math.pi), [start]
    for _ in range(14):
        angle += hand.rng.normal(0, 0.35)
        y, x = points[-1]
        step = (y + 5 * math.sin(angle), x + 5 * math.cos(angle))
        points.append(_clipped([(round(step[0] * 8) / 8, round(step[1] * 8) / 8)], hand.truth.shape)[0])
    parts = list(hand.right_parts(points, radius, "background", 0))
    longest = [p for p in parts if len(p.points) > 1][:2]
    yield from longest
    if not longest and hand.is_right((start,), 0.5, 0):
        yield Stroke(points=(start,), radius_px=0.5, label="background")
