"""Bring training images to a common scale: that at which their typical object has the diameter that the network knows.

A network sees about 60 px around a pixel. Objects much larger than that are cut, objects of a few pixels have no shape.
The same minutes of training also make more of an image that was reduced, as each patch shows more of it. So every image
gets a scale of its own, from its outlined objects, and prediction finds the same scale again (inference/scale.py).

    image of objects of 44 px  ──× 0.45──▶ objects of 20 px ──▶ patches, held-out annotation, calibration
    image of objects of 12 px  ──× 1.68──▶ objects of 20 px ──▶

Pixels are resampled as prediction does it (inference/resample.py); labels are those of the nearest pixel; a drawn
boundary stays connected: a pixel is boundary where any pixel under it is. Scales are rounded to steps of 2^(1/8), so
that they do not change with a few more strokes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.annotations.targets import region_codes, two_sided_pixels
from sketchscale.geometry import Box, tile_cover
from sketchscale.inference.resample import resampled_box, scaled_length
from sketchscale.training.patches import AnnotatedImage, TrainingImage

__all__ = [
    "DIAMETER",
    "ScaledImage",
    "annotated_parts",
    "bounded_objects",
    "outlined_diameter",
    "rounded_scale",
    "scaled_image",
    "typical_diameter",
    "typical_size",
]

DIAMETER = 20.0
"""px, of the median object at the scale of the network, where no start says another; see benchmarks/diameters.py."""

_BOUNDED = {2: 0.1, 3: 0.5}
"""Share of an object's annotated pixels with a known or bounded distance, from which on it counts, by axes."""

_PART, _AROUND = (64, 128, 128), 8
"""Voxels of a volume that are looked at together, and around them; what is deeper in an object counts as unknown."""

_LEAST, _MOST = 0.05, 4.0


def rounded_scale(scale: float) -> float:
    """Return a scale rounded to 2^(n/8), within 1/20 and 4.

    >>> rounded_scale(0.98), rounded_scale(0.5), round(rounded_scale(0.45), 4)
    (1.0, 0.5, 0.4585)
    """
    steps = round(8 * math.log2(min(max(scale, _LEAST), _MOST)))
    return float(2 ** (steps / 8))


def typical_diameter(areas: npt.NDArray[np.int64]) -> float:
    """Return the diameter, px, of the circle with the typical area: half of all their pixels lie in larger objects.

    Unlike the median over objects, it does not change with debris.

    >>> round(typical_diameter(np.array([3] * 9 + [314] * 3)), 1)
    20.0
    """
    return float(np.sqrt(4 / np.pi * typical_size(areas)))


def typical_size(sizes: npt.NDArray[np.int64]) -> int:
    """Return the size that half of all pixels exceed in their object."""
    rising = np.sort(sizes)
    sums = np.cumsum(rising)
    return int(rising[np.searchsorted(sums, sums[-1] / 2)])


def annotated_parts(image: AnnotatedImage) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_] | None]]:
    """Yield labels and boundary of a plane, or of the parts of a volume that hold an object, for the memory's sake."""
    labels, boundary = image.labels, image.boundary
    if labels.ndim == 2:
        yield labels, boundary
        return
    for tile in tile_cover(labels.shape, _PART, halo=_AROUND):
        if (labels[tile.write.slices] > 0).any():
            yield labels[tile.read.slices], None if boundary is None else boundary[tile.read.slices]


def bounded_objects(image: AnnotatedImage) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the annotated area, px, of every object in an image, and whether boundaries bound it.

    An object is bounded if a boundary determines or bounds the distance on at least a tenth of its annotated pixels, or
    half in a volume, where it does next to the outline in a single plane at least. Objects of a volume count in each
    part of it. The pixels of a boundary stroke belong to no object, so those with a wide outline have smaller areas.

    >>> outlined = np.zeros((9, 9), np.int32)
    >>> outlined[2:6, 2:6] = 1
    >>> areas, bounded = bounded_objects(TrainingImage(image=np.zeros((1, 9, 9), np.float32), labels=outlined))
    >>> areas.tolist(), bounded.tolist()
    ([16], [True])
    """
    areas, bounded = [np.zeros(0, np.int64)], [np.zeros(0, np.bool_)]
    for labels, boundary in annotated_parts(image):
        objects = np.maximum(region_codes(labels, boundary), 0)
        drawn = np.bincount(objects.ravel())[1:]
        known = np.bincount(objects[two_sided_pixels(labels, boundary)], minlength=drawn.size + 1)[1:]
        there = drawn > 0
        areas.append(drawn[there])
        bounded.append((known >= _BOUNDED[labels.ndim] * drawn)[there])
    return np.concatenate(areas), np.concatenate(bounded)


def outlined_diameter(parts: Sequence[AnnotatedImage]) -> float | None:
    """Return the typical diameter, px, of the outlined objects in the parts of an image; None where there are none."""
    areas = [np.zeros(0, np.int64)]
    for part in parts:
        found, bounded = bounded_objects(part)
        areas.append(found[bounded])
    joined = np.concatenate(areas)
    return typical_diameter(joined) if joined.size else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledImage:
    """An AnnotatedImage of another one at a scale: network px per image px. Read again at each access, as that one."""

    original: AnnotatedImage
    scale: float

    @property
    def name(self) -> str:
        """The name of the original."""
        return self.original.name

    @property
    def channels(self) -> int:
        """How many channels there are."""
        return self.original.channels

    @property
    def image(self) -> npt.NDArray[np.float32]:
        """Resampled pixels (c, y, x)."""
        return np.asarray(resampled_box(self.original.image, self.scale), np.float32)

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """Labels (y, x) of the nearest pixels."""
        return _nearest(self.original.labels, self.scale)

    @property
    def boundary(self) -> npt.NDArray[np.bool_] | None:
        """Pixels (y, x) with drawn boundary under them."""
        boundary = self.original.boundary
        if boundary is None:
            return None
        return _nearest(boundary, self.scale) if self.scale >= 1 else _any(boundary, self.scale)

    @property
    def core(self) -> Box | None:
        """The part in which patches are centred."""
        core = self.original.core
        if core is None:
            return None
        start, stop = ([round(n * self.scale) for n in corner] for corner in (core.start, core.stop))
        return Box(tuple(start), tuple(max(a + 1, b) for a, b in zip(start, stop, strict=True)))

    @property
    def ignored(self) -> npt.NDArray[np.bool_] | None:
        """Ignored pixels (y, x), of the nearest pixels."""
        ignored = self.original.ignored
        return None if ignored is None else _nearest(ignored, self.scale)

    @property
    def numbered(self) -> frozenset[int] | None:
        """Those of the original."""
        return self.original.numbered


def scaled_image(image: AnnotatedImage, scale: float) -> AnnotatedImage:
    """Return an image at a scale; one in memory stays there, at scale 1 it is returned as it is."""
    if scale == 1:
        return image
    found = ScaledImage(original=image, scale=scale)
    if not isinstance(image, TrainingImage):
        return found
    names = ("image", "labels", "boundary", "name", "core", "ignored", "numbered")
    return TrainingImage(**{name: getattr(found, name) for name in names})


def _nearest(values: npt.NDArray[Any], scale: float) -> npt.NDArray[Any]:
    """Return the values of the pixels under the centres of the scaled ones."""
    centres = [
        np.minimum(((np.arange(scaled_length(n, scale)) + 0.5) / scale).astype(np.intp), n - 1) for n in values.shape
    ]
    return values[np.ix_(*centres)]


def _any(mask: npt.NDArray[np.bool_], scale: float) -> npt.NDArray[np.bool_]:
    """Return whether any pixel lies under a pixel of the reduced mask; each one lies under one at least."""
    found = np.zeros([scaled_length(n, scale) for n in mask.shape], np.bool_)
    ends = np.array(found.shape)[:, None] - 1
    found[tuple(np.minimum(((np.argwhere(mask).T + 0.5) * scale).astype(np.intp), ends))] = True
    return found
