"""Record which kind of image a model knows after training on strokes.

The statistics of networks/kind.py are taken in a few annotated windows. A few windows of one or two images show little
of how much such images vary. So the intervals are made wider than those of a model that was trained on hundreds of
images: on both sides by their whole length, and by at least `LEAST`. Such a model warns only of images that are clearly
different. The cost is that of the network on four windows of 256 px.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sketchscale.geometry import Box
from sketchscale.networks.checkpoint import Model
from sketchscale.networks.kind import Statistics, count_fields, kind_of, statistics_of
from sketchscale.training.patches import AnnotatedImage
from sketchscale.training.thresholds import predict_image
from sketchscale.workflow.segment.unknown_kinds import has_statistics, levels_of

__all__ = ["LEAST", "WIDER", "learn_kind"]

WIDER, LEAST = 1.0, 0.15

_WINDOWS, _SIDE = 4, 256


def learn_kind(model: Model, images: Sequence[AnnotatedImage], brightness: Sequence[tuple[float, ...]] = ()) -> Model:
    """Return the model with the kind of its images in its configuration.

    Args:
        model: in evaluation mode, with its final threshold.
        images: annotated, or the parts around what was drawn; four of them are used, spread evenly.
        brightness: of whole images, per channel, which the parts cannot show.

    Returns:
        The same network with another configuration; the model unchanged where it has no such statistics, or no images.
    """
    if not images or not has_statistics(model.config):
        return model
    chosen = [images[int(i)] for i in np.linspace(0, len(images) - 1, min(_WINDOWS, len(images)))]
    windows = [_window_statistics(model, image) for image in chosen]
    whole = [replace(windows[0], brightness=known) for known in brightness]
    kind = kind_of([*windows, *whole], wider=WIDER, least=LEAST)
    return replace(model, config=replace(model.config, kind=replace(kind, images=len(windows))))


def _window_statistics(model: Model, image: AnnotatedImage) -> Statistics:
    """Return the statistics of a window of at most 256 px a side, and the brightness of all pixels.

    The window lies around the middle of the annotated foreground, or of the image where there is none.
    """
    pixels, labels = image.image, image.labels
    drawn = np.argwhere(labels > 0)
    middle = np.median(drawn, axis=0) if drawn.size else np.array(labels.shape) / 2
    start = [int(np.clip(m - _SIDE // 2, 0, max(0, n - _SIDE))) for m, n in zip(middle, labels.shape, strict=True)]
    box = Box(tuple(start), tuple(min(n, a + _SIDE) for a, n in zip(start, labels.shape, strict=True)))
    fields = predict_image(model, pixels[(slice(None), *box.slices)])
    bright = [float(np.clip(np.median(channel), 0, 1)) for channel in pixels]
    return statistics_of(bright, count_fields(fields.astype(np.float16), levels_of(model.config)))
