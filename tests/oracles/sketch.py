"""A sketch painted the obvious way: every pixel of a dense image asked one by one, objects by flood fill."""

from __future__ import annotations

import itertools
import math
from collections import deque

import numpy as np

from sketchscale.annotations.events import BOUNDARY, Event, LabelledBox, Polygon, Raster, Stroke

FREE = -3


def covers(event: Stroke | Polygon, y: int, x: int) -> bool:
    """Whether the centre of a pixel belongs to a stroke or polygon."""
    if isinstance(event, Polygon):
        return sum(_crossings_left(ring, y, x) for ring in event.rings) % 2 == 1
    if any((math.floor(p + 0.5), math.floor(q + 0.5)) == (y, x) for p, q in event.points):
        return True
    ends = event.points if len(event.points) > 1 else event.points * 2
    return any(_distance(a, b, y, x) <= event.radius_px for a, b in itertools.pairwise(ends))


def _distance(a: tuple[float, float], b: tuple[float, float], y: int, x: int) -> float:
    dy, dx = b[0] - a[0], b[1] - a[1]
    length2 = dy * dy + dx * dx
    t = min(1.0, max(0.0, ((y - a[0]) * dy + (x - a[1]) * dx) / length2)) if length2 else 0.0
    return math.hypot(y - a[0] - t * dy, x - a[1] - t * dx)


def _crossings_left(ring: tuple[tuple[float, float], ...], y: int, x: int) -> int:
    count = 0
    for (ay, ax), (by, bx) in zip(ring, (*ring[1:], ring[0]), strict=True):
        if min(ay, by) <= y < max(ay, by) and ax + (y - ay) * (bx - ax) / (by - ay) <= x:
            count += 1
    return count


def rasterize(shape: tuple[int, int], marks: tuple[Event, ...]) -> tuple[np.ndarray, np.ndarray, int]:
    """labels, boundary and the number of conflicting pixels of the events in force."""
    area, boundary, conflict = np.full(shape, -1), np.zeros(shape, bool), np.zeros(shape, bool)
    for mark in marks:
        for y, x in np.ndindex(*shape):
            _paint(mark, y, x, area, boundary, conflict)
    labels = _objects(np.where(boundary, -1, area))
    for mark in marks:
        if isinstance(mark, LabelledBox):
            part = labels[mark.box.slices]
            part[(part == -1) & ~boundary[mark.box.slices]] = 0
    return labels, boundary, int(conflict.sum())


def _value(mark: Event, y: int, x: int) -> int | str:
    if isinstance(mark, Raster):
        inside = all(a <= i < b for i, a, b in zip((y, x), mark.start, mark.stop, strict=True))
        return int(mark.values()[y - mark.start[0], x - mark.start[1]]) if inside else -1
    if not isinstance(mark, Stroke | Polygon) or not covers(mark, y, x):
        return -1
    if mark.label == "foreground":
        return mark.object or FREE
    return {"background": 0, "boundary": BOUNDARY, "unknown": "erase"}[mark.label]


def _paint(mark: Event, y: int, x: int, area: np.ndarray, boundary: np.ndarray, conflict: np.ndarray) -> None:
    value = _value(mark, y, x)
    is_inside = area[y, x] > 0 or area[y, x] == FREE
    if value == "erase":
        area[y, x], boundary[y, x], conflict[y, x] = -1, False, False
    elif value == BOUNDARY:
        boundary[y, x] = True
    elif value == 0:
        conflict[y, x] |= is_inside
        area[y, x] = 0
    elif value != -1:
        conflict[y, x] |= area[y, x] == 0 or (
            isinstance(mark, Stroke) and min(value, area[y, x]) > 0 and value != area[y, x]
        )
        if value != FREE or not is_inside:
            area[y, x] = value


def _neighbours(shape: tuple[int, ...], y: int, x: int) -> list[tuple[int, int]]:
    around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
    return [(p, q) for p, q in around if 0 <= p < shape[0] and 0 <= q < shape[1]]


def _objects(area: np.ndarray) -> np.ndarray:
    names: dict[tuple[int, int], object] = {(y, x): int(area[y, x]) for y, x in np.argwhere(area > 0).tolist()}
    seen: set[tuple[int, int]] = set()
    for start in map(tuple, np.argwhere(area == FREE).tolist()):
        if start in seen:
            continue
        component, touched = {start}, set()
        queue = deque([start])
        while queue:
            for p in _neighbours(area.shape, *queue.popleft()):
                if area[p] > 0:
                    touched.add(int(area[p]))
                elif area[p] == FREE and p not in component:
                    component.add(p)
                    queue.append(p)
        seen |= component
        name: object = touched.pop() if len(touched) == 1 else ("own", start)
        names |= dict.fromkeys(component, name)
    order: dict[object, int] = {}
    labels = np.minimum(area, 0)
    labels[labels == FREE] = 0
    for p in sorted(names):
        labels[p] = order.setdefault(names[p], len(order) + 1)
    return labels
