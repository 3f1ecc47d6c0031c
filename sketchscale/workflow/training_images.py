"""Images and their sketches as training takes them: read once, and read again where strokes were added.

Only the surroundings of what was drawn are read: a sketch on a plate of 20,000 px costs the memory of its strokes.
Intensities are scaled by percentiles of the whole image, as in prediction; they are computed once.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sketchscale.annotations.events import Stroke
from sketchscale.annotations.painting import extent_of
from sketchscale.annotations.sketch import Sketch, open_sketch
from sketchscale.errors import InputError, MissingDataError
from sketchscale.geometry import Box, block_shape
from sketchscale.intensity import channel_ranges, normalize
from sketchscale.io.image import open_image
from sketchscale.io.planes import PlaneRef, read_plane
from sketchscale.training.patches import TrainingImage
from sketchscale.training.validation import hold_out, without
from sketchscale.workflow.runner import Runner
from sketchscale.workflow.segment_job import choose_channels

__all__ = ["Reading", "SketchedImages", "drawn_boxes"]

_MARGIN = 128
"""Pixels read around what was drawn: what the network sees beside a stroke."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How images are read: `channels` as in TrainOptions, percentiles `low` and `high`, what a conflict means."""

    channels: tuple[int | str, ...] | None
    low: float
    high: float
    on_conflict: Literal["refuse", "last"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A drawn box of the image number `position`."""

    position: int
    box: Box
    image: TrainingImage


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """An image and what does not change about it."""

    plane: PlaneRef
    channels: tuple[int, ...]
    ranges: tuple[tuple[float, float], ...]


class SketchedImages:
    """Pairs of image and sketch.

    Args:
        images, sketches: addresses and files, in order.
        runner: computes the percentiles.

    Raises:
        InputError: their numbers differ, nothing was drawn, a sketch does not fit its image or contradicts itself.
    """

    def __init__(self, images: Sequence[str], sketches: Sequence[str], reading: Reading, runner: Runner) -> None:
        if not images or len(images) != len(sketches):
            raise InputError.of(
                found=f"{len(images)} images and {len(sketches)} sketches",
                expected="one sketch for each image, in order",
                fix="repeat --sketch (or --validate-sketch)",
            )
        self.paths, self.reading = tuple(sketches), reading
        self._marks = [_mark(path) for path in self.paths]
        planes = [open_image(address).plane() for address in images]
        self.sketches = [self._open(path, plane) for path, plane in zip(self.paths, planes, strict=True)]
        if not any(sketch.marks for sketch in self.sketches):
            raise InputError.of(
                found=f"no stroke in {', '.join(self.paths[:3])}",
                expected="something drawn",
                fix="draw inside a few objects, around them, and background",
            )
        self._opened = [self._ready(plane, runner) for plane in planes]
        self._parts = [self._read(position) for position in range(len(planes))]
        self._held_out: tuple[tuple[int, Box, npt.NDArray[np.bool_]], ...] = ()

    def _open(self, path: str, plane: PlaneRef) -> Sketch:
        """Of several sketches one may lack boundaries, as long as they have some together."""
        sketch = open_sketch(path, shape=plane.shape)
        if (len(self.paths) == 1 and sketch.marks) or (self.reading.on_conflict == "refuse" and sketch.conflicts()):
            sketch.check(self.reading.on_conflict)
        return sketch

    def _ready(self, plane: PlaneRef, runner: Runner) -> _Opened:
        wanted = self.reading.channels if self.reading.channels is not None else tuple(range(len(plane.channels)))
        channels = choose_channels(plane, wanted)
        y, x = block_shape(plane.shape, plane.chunks, runner.execution.block)
        ranges = channel_ranges(runner.run, plane, (y, x), channels, low=self.reading.low, high=self.reading.high)
        return _Opened(plane=plane, channels=tuple(channels), ranges=tuple(ranges))

    def _read(self, position: int) -> list[_Part]:
        sketch, opened, parts = self.sketches[position], self._opened[position], []
        for box in drawn_boxes(sketch):
            raster = sketch.rasterize(box)
            image = TrainingImage(
                image=normalize(read_plane(opened.plane, box, opened.channels), opened.ranges),
                labels=raster.labels,
                boundary=raster.boundary,
                name=f"{opened.plane.array} {box}",
            )
            parts.append(_Part(position=position, box=box, image=image))
        return parts

    def look(self) -> None:
        """Read a pixel of every image: a process that cannot see one finds out before the first step.

        Raises:
            MissingDataError, InputError: names the image and the machine.
        """
        for opened in self._opened:
            try:
                read_plane(opened.plane, Box((0, 0), (1, 1)), opened.channels)
            except InputError as error:
                raise type(error)(f"on {platform.node()}: {error}") from error

    @property
    def parts(self) -> list[_Part]:
        return [part for parts in self._parts for part in parts]

    def training(self) -> list[TrainingImage]:
        """What may be taught: all that was drawn, without what was held out."""
        return [self._taught(part) for part in self.parts]

    def _taught(self, part: _Part) -> TrainingImage:
        image = part.image
        for position, box, mask in self._held_out:
            common = box.intersect(part.box)
            if position == part.position and common.size:
                hidden = np.zeros(image.labels.shape, np.bool_)
                hidden[common.relative_to(part.box.start).slices] = mask[common.relative_to(box.start).slices]
                image = without(image, hidden)
        return image

    def hold_out(self, share: float, seed: int) -> list[TrainingImage]:
        """Take a share of the objects drawn so far away from training, with the place they are in; returns them.

        Raises:
            InputError: see training.validation.
        """
        split = hold_out([part.image for part in self.parts], share, seed)
        self._held_out = tuple((p.position, p.box, mask) for p, mask in zip(self.parts, split.masks, strict=True))
        return list(split.validation)

    def read_again(self) -> bool:
        """Take in sketch files that changed since the last look; whether any did.

        Raises:
            InputError: what is drawn now does not read, fit or agree; what was read before stays in use.
        """
        marks = [_mark(path) for path in self.paths]
        changed = [i for i, (old, new) in enumerate(zip(self._marks, marks, strict=True)) if old != new]
        self._marks = marks
        fresh = {i: self._open(self.paths[i], self._opened[i].plane) for i in changed}
        before = list(self.sketches)
        for i, sketch in fresh.items():
            self.sketches[i] = sketch
        try:
            parts = {i: self._read(i) for i in changed}
        except Exception:
            self.sketches = before
            raise
        for i in changed:
            self._parts[i] = parts[i]
        return bool(changed)


def _mark(path: str) -> tuple[int, int]:
    """Size and time of change of a file."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise MissingDataError(f"sketch {path} cannot be read: {error.strerror}; expected: a .jsonl log") from error
    return status.st_size, status.st_mtime_ns


def drawn_boxes(sketch: Sketch, *, margin: int = _MARGIN) -> list[Box]:
    """Boxes that together hold everything drawn with a margin; boxes that overlap are one.

    Margins reach to the image's edge where it is near, so a stroke's surroundings are cut by the image only.
    """
    boxes: list[Box] = []
    for event in sketch.marks:
        low, high = extent_of(event)
        reach = margin + (int(event.radius_px) + 1 if isinstance(event, Stroke) else 0)
        box = Box((int(low[0]), int(low[1])), (int(high[0]) + 1, int(high[1]) + 1)).grow(reach).clip(sketch.shape)
        boxes = _joined(boxes, box)
    return sorted(boxes)


def _joined(boxes: Sequence[Box], box: Box) -> list[Box]:
    """The boxes and one more, joined with all it overlaps."""
    apart = list(boxes)
    while meeting := [other for other in apart if other.intersect(box).size]:
        apart = [other for other in apart if other not in meeting]
        corners = [box, *meeting]
        box = Box(
            (min(b.start[0] for b in corners), min(b.start[1] for b in corners)),
            (max(b.stop[0] for b in corners), max(b.stop[1] for b in corners)),
        )
    return [*apart, box]
