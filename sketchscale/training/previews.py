"""Make previews of a training: a fixed window of an image, its strokes, and the prediction there.

Training computes, the caller draws: pictures need no part of this package's training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
        side: px; windows are cut where the image is smaller.
    """
    best = (-1.0, 0, Box((0, 0), (1, 1)))
    for position, image in enumerate(images):
        known = (image.labels >= 0) | (False if image.boundary is None else image.boundary)
        shape = (min(side, known.shape[0]), min(side, known.shape[1]))
        share = ndimage.uniform_filter(known.astype(np.float32), shape, mode="constant")
        # A window of even side n that is centred on i starts at i - n // 2.
        y, x = np.unravel_index(int(np.argmax(share.round(6))), share.shape)
        start = tuple(min(max(0, int(c) - n // 2), m - n) for c, n, m in zip((y, x), shape, known.shape, strict=True))
        box = Box(start, tuple(a + n for a, n in zip(start, shape, strict=True)))
        found = float(known[box.slices].sum())
        if found > best[0]:
            best = (found, position, box)
    return best[1], best[2]


def make_preview(model: Model, image: AnnotatedImage, box: Box, step: int) -> Preview:
    """Return the preview of a window; pixels around the window are not used."""
    pixels = np.ascontiguousarray(image.image[(slice(None), *box.slices)])
    empty = np.zeros(box.shape, np.bool_)
    return Preview(
        step=step,
        name=image.name,
        box=box,
        image=pixels,
        labels=image.labels[box.slices],
        boundary=empty if image.boundary is None else image.boundary[box.slices],
        distance=predict_image(model, pixels)[2],
        threshold=model.config.threshold,
    )
