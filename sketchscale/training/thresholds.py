"""Set what a trained network needs to be used: threshold and object sizes, from its fields of images in memory."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from sketchscale.annotations.cracks import UNKNOWN
from sketchscale.annotations.strokes import LINE_MARGIN, centre_line
from sketchscale.geometry import Box, whole
from sketchscale.inference.backend import Recipe, TorchBackend
from sketchscale.inference.plan import predict_array
from sketchscale.inference.views import views_of
from sketchscale.integration.config import IntegrationConfig, crowd_for
from sketchscale.integration.plan import integrate
from sketchscale.networks.checkpoint import Model
from sketchscale.training.patches import AnnotatedImage
from sketchscale.training.scale import typical_diameter, typical_size

__all__ = [
    "choose_threshold",
    "labels_with_lines",
    "object_diameter",
    "predict_image",
    "predicted_areas",
    "smallest_size",
]


_AROUND = 64
"""Pixels around annotated foreground that are looked at for whole objects."""


def predict_image(
    model: Model, image: npt.NDArray[np.float32], where: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.float32]:
    """Return the fields of a normalised image in memory, for validation and thresholds, as `segment` computes them.

    They are of float32 networks whatever the precision of a training's steps: a threshold that is set on rounded
    distances (by 0.03 px at 4 px in bfloat16) would depend on the machine, and float32 is slow on none.

    Args:
        model: in evaluation mode, on any device.
        image: (c, y, x) or (c, z, y, x).
        where: (y, x) or (z, y, x), pixels that are needed; tiles without any are left at 0. None for all.

    Returns:
        (axes + 1, ...): flow along each axis, distance in px; or maps. Tiles of a small image are shortened.
    """
    device = str(next(model.network.parameters()).device)
    backend = TorchBackend(model=model, recipe=Recipe(device=device, threads=torch.get_num_threads()))
    views = views_of(image.shape[1:], model, short=True)
    return predict_array(image, backend, views, ((0.0, 1.0),) * len(image), where=where).astype(np.float32)


def choose_threshold(
    model: Model,
    images: Sequence[AnnotatedImage],
    *,
    most: int = 40,
    until: float | None = None,
    prefer: float | None = None,
) -> float:
    """Return the distance that best separates annotated foreground from annotated background.

    Rule: among -4, -3.75, ..., 0 the one with the largest mean of two shares on their right side: of foreground pixels,
    and of background pixels together with the centre line of boundary strokes; of candidates within 0.002 of the best,
    the one in their middle. These lines count because they say where objects end: background strokes alone, which keep
    away from objects, are separated by any threshold. What else a wide brush covers may be on either side.

    Args:
        most: images that are looked at, spread evenly over the sequence.
        until: no further image is begun at this time (`time.monotonic`) once one shows both; None for no limit.
        prefer: of candidates within 0.002 of the best, the one nearest to this instead of the middle one.
    """
    candidates = np.arange(-4, 0.01, 0.25)
    chosen = [images[int(i)] for i in np.linspace(0, len(images) - 1, min(most, len(images)))]
    inside: list[npt.NDArray[np.float32]] = []
    background: list[npt.NDArray[np.float32]] = []
    for image in chosen:
        enough = any(part.size for part in inside) and any(part.size for part in background)
        if until is not None and enough and time.monotonic() > until:
            break
        labels = labels_with_lines(image)
        distance = predict_image(model, image.image, labels >= 0)[-1]
        inside.append(distance[labels > 0])
        background.append(distance[labels == 0])
    right = (
        _share_above(np.concatenate(inside), candidates) + 1 - _share_above(np.concatenate(background), candidates)
    ) / 2
    best = np.flatnonzero(right >= right.max() - 0.002)
    if prefer is not None:
        return float(min(candidates[best], key=lambda t: abs(t - prefer)))
    return float(candidates[best[len(best) // 2]])


def labels_with_lines(image: AnnotatedImage, box: Box | None = None) -> npt.NDArray[np.int32]:
    """Return the labels with boundary strokes as one-pixel lines of background; what else they cover is unknown.

    In volumes all of a stroke is background; see annotations.space.

    Args:
        box: the part that is wanted; None for all.
    """
    boundary, shape = image.boundary, image.labels.shape
    box = whole(shape) if box is None else box
    around = box.grow(LINE_MARGIN).clip(shape)
    labels = image.labels[around.slices].copy()
    if boundary is not None:
        drawn = boundary[around.slices]
        labels[drawn] = UNKNOWN
        labels[centre_line(drawn) if labels.ndim == 2 else drawn] = 0
    return labels[box.relative_to(around.start).slices]


def _share_above(values: npt.NDArray[np.float32], thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1 - np.searchsorted(np.sort(values), thresholds, side="right") / max(1, values.size)


def predicted_areas(model: Model, images: Sequence[AnnotatedImage], *, most: int = 8) -> npt.NDArray[np.int64]:
    """Return the sizes, px, of predicted objects with annotated foreground, for sizes where outlines are unknown.

    Args:
        model: in evaluation mode; its threshold is used.
        most: images that are looked at, spread evenly over the sequence.
    """
    areas = [np.zeros(0, np.int64)]
    for i in np.linspace(0, len(images) - 1, min(most, len(images))):
        image = images[int(i)]
        drawn = image.labels > 0
        rule = IntegrationConfig(
            threshold=model.config.threshold, min_size=0, crowd=1 if drawn.ndim == 2 else crowd_for(0)
        )
        near = ndimage.distance_transform_cdt(~drawn, "taxicab") <= _AROUND if drawn.any() else drawn
        found = integrate(predict_image(model, image.image, near), rule)
        hit = np.unique(found[drawn])
        areas.append(np.bincount(found.ravel())[hit[hit > 0]])
    return np.concatenate(areas)


def _areas(images: Sequence[AnnotatedImage]) -> npt.NDArray[np.int64]:
    areas = [_own_areas(image) for image in images]
    found = np.concatenate(areas) if areas else np.zeros(0, np.int64)
    return found[found > 0]


def _own_areas(image: AnnotatedImage) -> npt.NDArray[np.int64]:
    """Return areas by id; of an annotation in parts, an object counts in the part with its first pixel in the core."""
    labels = image.labels
    areas = np.bincount(labels[labels > 0])
    if image.core is not None:
        ids, first = np.unique(labels, return_index=True)
        sides = zip(np.unravel_index(first, labels.shape), image.core.start, image.core.stop, strict=True)
        own = (ids > 0) & np.all([(at >= start) & (at < stop) for at, start, stop in sides], axis=0)
        areas[np.setdiff1d(np.arange(areas.size), ids[own])] = 0
    return areas


def object_diameter(
    images: Sequence[AnnotatedImage], areas: npt.NDArray[np.int64] | None = None, anisotropy: float = 1.0
) -> float:
    """Return the typical diameter, px, of circles with the given areas, else with the annotated ones.

    Args:
        anisotropy: of volumes, whose sizes are voxels; then the diameter is that of a ball.
    """
    areas = _areas(images) if areas is None else areas
    if images and images[0].image.ndim == 4:
        return float(np.cbrt(6 / np.pi * anisotropy * typical_size(areas)))
    return typical_diameter(areas)


def smallest_size(images: Sequence[AnnotatedImage], areas: npt.NDArray[np.int64] | None = None) -> int:
    """Return half of the 5th percentile of the areas: nothing much smaller than the annotation is an object."""
    return max(1, int(np.percentile(_areas(images) if areas is None else areas, 5) / 2))
