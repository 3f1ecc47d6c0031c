"""Make previews of a training: a fixed window of an image, its strokes, and the prediction there.

Training computes, the caller draws: pictures need no part of this package's training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sketchscale.geometry import Box
from sketchscale.networks.checkpoint import Model
from sketchscale.training.patches import AnnotatedImage
from sketchscale.training.thresholds import predict_image

__all__ = ["Preview", "choose_window", "make_preview"]

_SIDE = 320


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A window after some step.

    Attributes:
        step: how many steps were taken.
        name: of the image. box: the window in it.
        image: (c, y, x), normalised. labels, boundary: (y, x), see TrainingImage.
        distance: (y, x), predicted, px; or m, a probability. threshold: of it, foreground is above.
    """

    step: int
    name: str
    box: Box
    image: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int32]
    boundary: npt.NDArray[np.bool_]
    distance: npt.NDArray[np.float32]
    threshold: float


def choose_window(images: Sequence[AnnotatedImage], side: int = _SIDE) -> tuple[int, Box]:
    """Return the image and the window in it with most annotation; of equal ones the first.

    Args:
        side: px along each axis; windows are cut where the image is smaller.
    """
    best = (-1.0, 0, Box((0,) * images[0].labels.ndim, (1,) * images[0].labels.ndim))
    for position, image in enumerate(images):
        known = (image.labels >= 0) | (False if image.boundary is None else image.boundary)
        shape = tuple(min(side, n) for n in known.shape)
        share = ndimage.uniform_filter(known.astype(np.float32), shape, mode="constant")
        # A window of even side n that is centred on i starts at i - n // 2.
        at = np.unravel_index(int(np.argmax(share.round(6))), share.shape)
        start = tuple(min(max(0, int(c) - n // 2), m - n) for c, n, m in zip(at, shape, known.shape, strict=True))
        box = Box(start, tuple(a + n for a, n in zip(start, shape, strict=True)))
        found = float(known[box.slices].sum())
        if found > best[0]:
            best = (found, position, box)
    return best[1], best[2]


def make_preview(model: Model, image: AnnotatedImage, box: Box, step: int) -> Preview:
    """Return the preview of a window; pixels around the window are not used.

    Of a volume it shows the section of the window in which most is annotated.
    """
    pixels = np.ascontiguousarray(image.image[(slice(None), *box.slices)])
    empty, labels = np.zeros(box.shape, np.bool_), image.labels[box.slices]
    section: tuple[Any, ...] = ()
    if labels.ndim == 3:
        section = (int(np.argmax((labels >= 0).sum(axis=(1, 2)))),)
    return Preview(
        step=step,
        name=image.name,
        box=box,
        image=pixels[(slice(None), *section)],
        labels=labels[section],
        boundary=(empty if image.boundary is None else image.boundary[box.slices])[section],
        distance=predict_image(model, pixels)[-1][section],
        threshold=model.config.threshold,
    )
