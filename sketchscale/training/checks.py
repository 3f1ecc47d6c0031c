"""What training refuses before it starts, and what it was taught."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sketchscale.annotations.hover_maps import maps_from_sketch
from sketchscale.annotations.targets import region_codes, targets_from_sketch
from sketchscale.errors import InputError
from sketchscale.losses import find_loss
from sketchscale.training.config import TrainingConfig
from sketchscale.training.patches import AnnotatedImage, check_dense

__all__ = ["annotation_sha256", "check_images"]


def check_images(images: Sequence[AnnotatedImage], config: TrainingConfig) -> None:
    """Refuse what cannot be learned from. No image at all is fine where synthetic scenes are taught.

    Raises:
        InputError: says which kind of stroke is missing, or that the loss needs dense labels.
    """
    if not images and config.synthetic is not None:
        return
    if not images:
        raise InputError.of(found="no image", expected="at least one with a sketch", fix="name images to train on")
    for image in images:
        if image.channels != config.network.channels:
            raise InputError.of(
                found=f"{image.name} has {image.channels} channels",
                expected=f"{config.network.channels}, as the network",
                fix="choose channels, or set network.channels",
            )
    if find_loss(config.loss.name).dense:
        check_dense(images)
    if not any((image.labels > 0).any() for image in images):
        raise InputError.of(found="no foreground stroke", expected="some objects", fix="draw inside a few objects")
    if not any((image.labels == 0).any() for image in images):
        raise InputError.of(
            found="no background: no stroke and no painted pixel is background",
            expected="some background",
            fix="draw thick background strokes where no object is; of a painted image in which every object is painted "
            "say --kind labels, of one with a value for background --class VALUE=background",
        )
    if config.target == "hover":
        _check_whole_objects(images)
        return
    targets = (targets_from_sketch(i.labels, i.boundary, outside=config.outside) for i in images)
    if not any((t.known & (t.distance > 0)).any() for t in targets):
        raise InputError.of(
            found="no pixel whose distance to a boundary is known",
            expected="boundary information",
            fix="draw the outlines of a few objects as boundary strokes, or background right up to them",
        )


def _check_whole_objects(images: Sequence[AnnotatedImage]) -> None:
    """Refuse annotation in which no object has an end on all sides: h/v maps would be taught nowhere.

    Raises:
        InputError: there is none.
    """
    for image in images:
        _, _, m, known = maps_from_sketch(region_codes(image.labels, image.boundary))
        if (m * known).any():
            return
    raise InputError.of(
        found="no object that is annotated whole",
        expected="objects with background, boundary or another object on all sides, as h/v maps need",
        fix="draw the outlines of a few objects and fill them, or use --loss sketchpose",
    )


def annotation_sha256(images: Sequence[AnnotatedImage]) -> str | None:
    """Of everything annotated, in order; None without images."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(f"{image.name} {image.labels.shape}".encode())
        digest.update(image.labels.tobytes())
        if image.boundary is not None:
            digest.update(image.boundary.tobytes())
    return digest.hexdigest() if images else None
