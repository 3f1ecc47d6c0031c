"""Images and their sketches for training: read once, and read again where strokes were added.

Only the surroundings of what was drawn are read: a sketch on a plate of 20,000 px costs the memory of its strokes.
Where these surroundings need too much memory, they are read when patches are drawn, and the last ones are kept.
Intensities are scaled by percentiles of the whole image, as in prediction; they are computed once.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from sketchscale.annotations.events import Event, Stroke
from sketchscale.annotations.opening import SketchFile, SketchReading, open_sketch_file, sketch_files
from sketchscale.annotations.painting import extent_of
from sketchscale.annotations.sketch import Sketch
from sketchscale.errors import InputError, MissingDataError
from sketchscale.geometry import Box, block_shape, joined_boxes
from sketchscale.intensity import Levels, channel_levels, normalize
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.planes import PixelsRef, read_plane
from sketchscale.training.patches import AnnotatedImage, TrainingImage
from sketchscale.training.scale import scaled_image
from sketchscale.training.validation import choose_held_out
from sketchscale.workflow.runner import Runner
from sketchscale.workflow.segment.job import choose_channels

__all__ = ["HELD_BYTES", "DrawnBox", "Reading", "SketchedImages", "SketchedPart", "drawn_boxes"]

_MARGINS = {2: 128, 3: 64}
"""Margin in px around what was drawn, which the network sees next to a stroke, in planes and in volumes."""

_LARGEST_PX = 4096 * 4096
"""Most pixels of a drawn box; about 0.3 GB with one channel."""

HELD_BYTES = 2 << 30
"""Most bytes of drawn boxes to keep in memory; see SketchedImages."""

_PIXEL_BYTES = 12
"""In addition to 4 per channel: labels, boundary, and what patches are centred on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How images and sketches are read.

    Attributes:
        channels: as in TrainOptions. low, high: percentiles. on_conflict: what overlapping classes mean.
        sketch: the kind of the sketch files and what their classes mean.
        volume: whether to read whole volumes instead of planes.
    """

    channels: tuple[int | str, ...] | None
    low: float
    high: float
    on_conflict: Literal["refuse", "last"]
    sketch: SketchReading = field(default_factory=SketchReading)
    volume: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """An opened image: plane, chosen channels, and their intensity levels."""

    plane: PixelsRef
    channels: tuple[int, ...]
    levels: tuple[Levels, ...]

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        return tuple(one.range for one in self.levels)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hidden:
    """Pixels of an image that training must not see, one bit each."""

    box: Box
    bits: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, box: Box, mask: npt.NDArray[np.bool_]) -> _Hidden:
        return cls(box=box, bits=np.packbits(mask))

    def overlaps(self, box: Box) -> bool:
        """Return whether some of the pixels lie in a box."""
        return self.box.intersect(box).size > 0

    def within(self, box: Box) -> npt.NDArray[np.bool_]:
        """Return the mask inside another box."""
        found, common = np.zeros(box.shape, np.bool_), self.box.intersect(box)
        if common.size:
            mask = np.unpackbits(self.bits, count=self.box.size).astype(np.bool_).reshape(self.box.shape)
            found[common.relative_to(box.start).slices] = mask[common.relative_to(self.box.start).slices]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class SketchedPart:
    """A drawn box of image number `position`: an AnnotatedImage that is read from storage when it is used."""

    position: int
    drawn: DrawnBox
    opened: _Opened
    sketch: Sketch
    hidden: tuple[_Hidden, ...] = ()

    @property
    def box(self) -> Box:
        """The box with its margin."""
        return self.drawn.box

    @property
    def name(self) -> str:
        """The array and the box, for messages."""
        return f"{self.opened.plane.array} {self.box}"

    @property
    def channels(self) -> int:
        """How many channels are read."""
        return len(self.opened.channels)

    @property
    def core(self) -> Box | None:
        """The box's own part, relative to the box; None where the annotation is not cut."""
        return None if self.drawn.core is None else self.drawn.core.relative_to(self.box.start)

    @property
    def image(self) -> npt.NDArray[np.float32]:
        """Normalised pixels (c, y, x).

        Raises:
            InputError: the image cannot be read, or some pixels are not finite.
        """
        pixels = normalize(read_plane(self.opened.plane, self.box, self.opened.channels), self.opened.ranges)
        return TrainingImage(image=pixels, labels=np.zeros(pixels.shape[1:], np.int32), name=self.name).image

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """Labels (y, x): k > 0 is an object, 0 background, -1 unknown or hidden."""
        labels = self.sketch.rasterize(self.box).labels
        for hidden in self.hidden:
            labels[hidden.within(self.box)] = -1
        return labels

    @property
    def ignored(self) -> npt.NDArray[np.bool_] | None:
        """Pixels that train nothing, (y, x); None where there are none."""
        return self.sketch.rasterize(self.box).ignored

    @property
    def numbered(self) -> frozenset[int]:
        """Objects with a number that a person gave."""
        return self.sketch.numbered

    @property
    def boundary(self) -> npt.NDArray[np.bool_]:
        """Mask (y, x) of drawn boundaries that are not hidden."""
        boundary = self.sketch.rasterize(self.box).boundary
        for hidden in self.hidden:
            boundary &= ~hidden.within(self.box)
        return boundary


class SketchedImages:
    """Pairs of image and sketch.

    Args:
        images, sketches: addresses and files, in order; none for a training on synthetic scenes alone.
        runner: computes the percentiles.
        say: called with one line for each sketch: how its file was understood.
        held_bytes: drawn boxes are kept in memory up to this size; beyond it, they are read when patches are drawn.
            This does not change what is learned.

    Attributes:
        scales: network px per image px of each image, which may be set: all that is returned from then on has this
            scale; () for 1. See training.scale.

    Raises:
        InputError: their numbers differ, nothing was drawn, a sketch does not fit its image or contradicts itself.
    """

    def __init__(
        self,
        images: Sequence[str],
        sketches: Sequence[str],
        reading: Reading,
        runner: Runner,
        *,
        say: Callable[[str], None] = lambda line: None,
        held_bytes: int = HELD_BYTES,
    ) -> None:
        if len(images) != len(sketches):
            raise InputError.of(
                found=f"{len(images)} images and {len(sketches)} sketches",
                expected="one sketch for each image, in order",
                fix="repeat --sketch (or --validate-sketch)",
            )
        self.paths, self.reading = tuple(sketches), reading
        self._states = [_file_state(path) for path in self.paths]
        opened_images = map(open_image, images)
        planes = [image.volume() if reading.volume else image.plane() for image in opened_images]
        self.sketches = []
        for path, plane in zip(self.paths, planes, strict=True):
            opened = self._open(path, plane)
            say(opened.line)
            self.sketches.append(self._checked(opened.sketch))
        if images and not any(sketch.marks for sketch in self.sketches):
            raise InputError.of(
                found=f"no stroke in {', '.join(self.paths[:3])}",
                expected="something drawn",
                fix="draw inside a few objects, around them, and background",
            )
        self._opened = []
        for plane in planes:
            wanted = reading.channels if reading.channels is not None else tuple(range(len(plane.channels)))
            channels = choose_channels(plane, wanted)
            block = block_shape(plane.shape, plane.chunks, runner.execution.block)
            levels = channel_levels(runner.run, plane, block, channels, low=reading.low, high=reading.high)
            self._opened.append(_Opened(plane=plane, channels=channels, levels=levels))
        self._held_bytes, self.scales = held_bytes, tuple[float, ...]()
        self._parts = [self._find(position) for position in range(len(planes))]
        self._pixels: dict[tuple[int, Box], npt.NDArray[np.float32]] = {}
        self._held_out: dict[int, list[_Hidden]] = {}

    def _open(self, path: str, plane: PixelsRef) -> SketchFile:
        return open_sketch_file(path, shape=plane.shape, reading=self.reading.sketch)

    def _checked(self, sketch: Sketch) -> Sketch:
        sketch.check(self.reading.on_conflict)
        return sketch

    def _find(self, position: int) -> list[SketchedPart]:
        sketch, opened = self.sketches[position], self._opened[position]
        return [
            SketchedPart(position=position, drawn=drawn, opened=opened, sketch=sketch) for drawn in drawn_boxes(sketch)
        ]

    def check_readable(self) -> None:
        """Read a pixel of every image, so that a process that cannot read one fails before the first step.

        Raises:
            MissingDataError, InputError: names the image and the machine.
        """
        for opened in self._opened:
            try:
                read_plane(opened.plane, Box((0,) * opened.plane.ndim, (1,) * opened.plane.ndim), opened.channels)
            except InputError as error:
                raise type(error)(f"on {platform.node()}: {error}") from error

    @property
    def ratios(self) -> list[float]:
        """Spacing along the first axis over that along y, of each image."""
        return [opened.plane.spacing[0] / opened.plane.spacing[-2] for opened in self._opened]

    @property
    def brightness(self) -> list[tuple[float, ...]]:
        """Brightness of each channel of each whole image; see networks/kind.py."""
        return [tuple(one.brightness for one in opened.levels) for opened in self._opened]

    @property
    def parts(self) -> list[SketchedPart]:
        """The drawn boxes of all images."""
        return [part for parts in self._parts for part in parts]

    @property
    def by_image(self) -> list[list[AnnotatedImage]]:
        """The drawn boxes of each image, at the image's own scale, without what was held out."""
        return [[self._loaded(part) if self.is_held else part for part in parts] for parts in self._parts]

    @property
    def pixel_um(self) -> list[float | None]:
        """The pixel size of each image; None where its file does not say."""
        sizes = [opened.plane.spacing_um for opened in self._opened]
        return [None if size is None else size[-1] for size in sizes]

    @property
    def is_held(self) -> bool:
        """Whether all drawn boxes fit in the memory that they may take."""
        return sum(part.box.size * (4 * part.channels + _PIXEL_BYTES) for part in self.parts) <= self._held_bytes

    def training(self) -> list[AnnotatedImage]:
        """Return everything that was drawn, without what was held out."""
        return self._made(
            [
                replace(part, hidden=tuple(h for h in self._held_out.get(part.position, ()) if h.overlaps(part.box)))
                for part in self.parts
            ]
        )

    def _made(self, parts: Sequence[SketchedPart]) -> list[AnnotatedImage]:
        """Return the parts at their scales; in memory where all fit, else as they are read."""
        scales = self.scales or (1.0,) * len(self.paths)
        return [scaled_image(self._loaded(part) if self.is_held else part, scales[part.position]) for part in parts]

    def _loaded(self, part: SketchedPart) -> TrainingImage:
        key = (part.position, part.box)
        if key not in self._pixels:
            self._pixels[key] = part.image
        return TrainingImage(
            image=self._pixels[key],
            labels=part.labels,
            boundary=part.boundary,
            name=part.name,
            core=part.core,
            ignored=part.ignored,
            numbered=part.numbered,
        )

    def hold_out(self, share: float, seed: int) -> list[AnnotatedImage]:
        """Take a share of the drawn objects, with their surroundings, away from training; return them.

        Raises:
            InputError: see training.validation.
        """
        parts = self.parts
        masks = choose_held_out(parts, share, seed)
        for part, mask in zip(parts, masks, strict=True):
            self._held_out.setdefault(part.position, []).append(_Hidden.of(part.box, mask))
        pairs = [(part, mask) for part, mask in zip(parts, masks, strict=True) if mask.any()]
        return self._made([replace(part, hidden=(_Hidden.of(part.box, ~mask),)) for part, mask in pairs])

    def read_again(self) -> bool:
        """Read sketch files that changed since the last call; return whether any did.

        Raises:
            InputError: a changed sketch does not read, fit or agree; what was read before stays in use.
        """
        states = [_file_state(path) for path in self.paths]
        changed = [i for i, (old, new) in enumerate(zip(self._states, states, strict=True)) if old != new]
        self._states = states
        fresh = {i: self._checked(self._open(self.paths[i], self._opened[i].plane).sketch) for i in changed}
        before = list(self.sketches)
        for i, sketch in fresh.items():
            self.sketches[i] = sketch
        try:
            parts = {i: self._find(i) for i in changed}
        except Exception:
            self.sketches = before
            raise
        for i in changed:
            self._parts[i] = parts[i]
        wanted = {(part.position, part.box) for part in self.parts}
        self._pixels = {key: pixels for key, pixels in self._pixels.items() if key in wanted}
        return bool(changed)


def _file_state(path: str) -> tuple[tuple[int, int], ...]:
    """Return size and time of change of a sketch's file, and of those that are read with it."""
    try:
        found = [os.stat(file) for file in sketch_files(path)]
    except OSError as error:
        raise MissingDataError(
            f"sketch {path} cannot be read: {error.strerror}; expected: a file with an annotation"
        ) from error
    return tuple((status.st_size, status.st_mtime_ns) for status in found)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnBox:
    """A box around something drawn, with a margin; `core` is its own part where an annotation is cut, else None."""

    box: Box
    core: Box | None = None


def drawn_boxes(sketch: Sketch, *, margin: int | None = None, largest: int = _LARGEST_PX) -> list[DrawnBox]:
    """Return boxes that together hold everything drawn with a margin; boxes that overlap are joined.

    Margins reach to the image's edge where it is near, so a stroke's surroundings are cut by the image only. A box of
    more than `largest` pixels (a line across a slide, strokes in a long row) is cut into the tiles of a fixed grid that
    hold something drawn, each with its margin.
    """
    found: list[DrawnBox] = []
    margin = _MARGINS[len(sketch.shape)] if margin is None else margin
    for box in sorted(joined_boxes(_around(event, margin).clip(sketch.shape) for event in sketch.marks)):
        found += [DrawnBox(box=box)] if box.size <= largest else _cut(sketch, box, margin)
    return found


def _around(event: Event, margin: int) -> Box:
    """Return the box of what an event drew, with a margin."""
    low, high = extent_of(event)
    reach = margin + (int(event.radius_px) + 1 if isinstance(event, Stroke) else 0)
    return Box(tuple(int(at) for at in low), tuple(int(at) + 1 for at in high)).grow(reach)


def _cut(sketch: Sketch, box: Box, margin: int) -> list[DrawnBox]:
    cores = (tile.intersect(box) for tile in sketch.annotated_tiles())
    return [DrawnBox(box=core.grow(margin).clip(sketch.shape), core=core) for core in cores if core.size]
