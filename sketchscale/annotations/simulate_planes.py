"""Simulate strokes in planes of a volume from full masks, as a person draws them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.annotations.events import Event, Stroke
from sketchscale.annotations.painting import stroke_masks
from sketchscale.annotations.planes import raised
from sketchscale.annotations.simulate import STYLES, Style, pick_objects, simulated_sketch, strokes_on_object
from sketchscale.annotations.simulate_mask import require_labels
from sketchscale.annotations.sketch import Sketch
from sketchscale.errors import InputError, UnknownNameError

__all__ = ["simulate_planes"]

_Labels = npt.NDArray[np.integer[Any]]


def simulate_planes(
    labels: _Labels, *, n_objects: int = 10, seed: int = 0, style: Style = "fill", margin: int = 24, image: str = ""
) -> Sketch:
    """Return strokes on objects of a volume, each in the three planes through its middle, and on background near it.

    In every plane one object is outlined and painted, as in `simulate_strokes`, in a window around it. The strokes of
    its planes cross in its middle, so they are one object without a number.

    Args:
        labels: true object ids (z, y, x), 0 background. Fewer than n_objects: all of them.
        n_objects: how many to draw; at least 1. Random ones, each followed by those that it touches.
        seed: of every choice; the same seed draws the same strokes.
        style: one of STYLES.
        margin: px of the window around the object.
        image: name put on the events.

    Raises:
        InputError: `labels` is not a volume of labels with at least one object, or n_objects < 1.

    >>> truth = np.zeros((12, 40, 40), np.uint32)
    >>> truth[4:9, 10:20, 10:22] = 1
    >>> simulate_planes(truth, n_objects=1).summary().objects
    1
    """
    require_labels(labels, axes=3)
    if n_objects < 1 or not labels.any():
        raise InputError.of(
            found=f"{n_objects} objects asked for", expected="at least one, in labels with objects", fix="ask for one"
        )
    if style not in STYLES:
        raise UnknownNameError.among("style", style, STYLES)
    rng = np.random.default_rng(seed)
    events: list[Event] = []
    for k in pick_objects(labels, n_objects, rng):
        where = np.argwhere(labels == k)
        middle = where[np.argmin(np.abs(where - np.median(where, axis=0)).sum(axis=1))].tolist()
        for axis in range(3):
            section = labels.take(middle[axis], axis)
            start, box = _around(np.argwhere(section == k), section.shape, margin)
            drawn = (_moved(stroke, start) for stroke in strokes_on_object(section[box], k, style=style, rng=rng))
            kept = (stroke for stroke in drawn if stroke.label != "background" or _is_background(stroke, section))
            events += [raised(stroke, axis, middle[axis]) for stroke in kept]
    return simulated_sketch([event for event in events if isinstance(event, Stroke)], labels, image)


def _moved(stroke: Stroke, start: Sequence[int]) -> Stroke:
    return dataclasses.replace(stroke, points=tuple((y + start[0], x + start[1]) for y, x in stroke.points))


def _is_background(stroke: Stroke, section: _Labels) -> bool:
    """Return whether a stroke meets no object of the whole section; its window shows only a part."""
    return all((section[box.slices][mask] == 0).all() for box, mask in stroke_masks(stroke, section.shape))


def _around(
    where: npt.NDArray[np.integer[Any]], shape: Sequence[int], margin: int
) -> tuple[tuple[int, ...], tuple[slice, ...]]:
    """Return where the box around some positions and a margin starts, and the box."""
    start = tuple(max(0, int(at) - margin) for at in where.min(axis=0))
    stop = [min(n, int(at) + margin + 1) for at, n in zip(where.max(axis=0), shape, strict=True)]
    return start, tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
