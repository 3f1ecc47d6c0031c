"""What training refuses before it starts, and what it was taught."""

from __future__ import annotations

import hashlib
import pkgutil
from collections.abc import Sequence

from sketchscale.annotations.targets import region_codes, targets_from_sketch
from sketchscale.errors import InputError
from sketchscale.losses import find_loss
from sketchscale.networks.targets import TARGETS, Target
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
    target = TARGETS[config.target]
    if not any(_teaches_an_object(image, target, config.outside) for image in images):
        found, expected, fix = target.unlearnable
        raise InputError.of(found=found, expected=expected, fix=fix)


def _teaches_an_object(image: AnnotatedImage, target: Target, outside: float) -> bool:
    """Whether what the target says is known at a pixel of an object."""
    codes = region_codes(image.labels, image.boundary)
    if target.maps:
        known = pkgutil.resolve_name(target.maps)(codes)[-1] > 0
    else:
        known = targets_from_sketch(image.labels, image.boundary, outside=outside).known
    return bool((known & (codes > 0)).any())


def annotation_sha256(images: Sequence[AnnotatedImage]) -> str | None:
    """Of everything annotated, in order; None without images."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(f"{image.name} {image.labels.shape}".encode())
        digest.update(image.labels.tobytes())
        if image.boundary is not None:
            digest.update(image.boundary.tobytes())
    return digest.hexdigest() if images else None
