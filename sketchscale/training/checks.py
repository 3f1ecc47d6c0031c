"""Check images before training, choose the loss that suits a sketch, and compute a digest of the annotation."""

from __future__ import annotations

import hashlib
import pkgutil
from collections.abc import Sequence

from sketchscale.annotations.targets import region_codes, two_sided_pixels
from sketchscale.errors import InputError
from sketchscale.losses import find_loss
from sketchscale.networks.targets import TARGETS, Target
from sketchscale.training.config import TrainingConfig
from sketchscale.training.patches import AnnotatedImage, check_dense
from sketchscale.training.scale import annotated_parts, bounded_objects

__all__ = ["NO_BACKGROUND", "annotation_sha256", "check_images", "choose_loss", "lacks_background"]

_MOST_OBJECTS = 200
"""Number of objects after which the choice of a loss is made."""

_BOUNDED_OBJECTS = 0.5

NO_BACKGROUND = "no background: no stroke and no painted pixel is background"


def choose_loss(images: Sequence[AnnotatedImage]) -> tuple[str, str]:
    """Return the loss that learns most from a sketch, and one line with the reason.

    `sketchpose` learns from distances that boundaries determine or bound. It is chosen where they do so on at least a
    tenth of the annotated pixels (half of those of a volume) of at least half of the objects, else `eikonal`, which
    finds the boundaries that no one drew. Objects count in each drawn part of an image, and the first 200 or so decide.

    >>> choose_loss([])
    ('sketchpose', 'loss sketchpose: synthetic scenes have full outlines')
    """
    if not images:
        return "sketchpose", "loss sketchpose: synthetic scenes have full outlines"
    bounded = objects = 0
    for image in images:
        found = bounded_objects(image)[1]
        objects += found.size
        bounded += int(found.sum())
        if objects >= _MOST_OBJECTS:
            break
    name = "sketchpose" if bounded >= _BOUNDED_OBJECTS * objects and bounded else "eikonal"
    which = "at least half" if name == "sketchpose" else "fewer than half"
    return name, f"loss {name}: boundaries give distances in {bounded} of {objects} annotated objects, {which}"


def lacks_background(images: Sequence[AnnotatedImage]) -> bool:
    """Return whether there are images, and none of their pixels is annotated as background."""
    return bool(images) and not any((image.labels == 0).any() for image in images)


def check_images(images: Sequence[AnnotatedImage], config: TrainingConfig, *, started: bool = False) -> None:
    """Refuse images that a network cannot learn from; with synthetic scenes no image is needed.

    Args:
        started: whether training starts from a model, which knows background; random weights need some annotated.

    Raises:
        InputError: a kind of stroke is missing, or the loss needs dense labels.
    """
    if not images and config.synthetic is not None:
        return
    if not images:
        raise InputError.of(found="no image", expected="at least one with a sketch", fix="name images to train on")
    for image in images:
        reads = config.network.channels
        if image.channels > reads or (image.channels < reads and not started):
            raise InputError.of(
                found=f"{image.name} has {image.channels} channels",
                expected=f"{reads}, as the network",
                fix="choose channels, or set network.channels",
            )
    if find_loss(config.loss.name).dense:
        check_dense(images)
    if not any((image.labels > 0).any() for image in images):
        raise InputError.of(found="no foreground stroke", expected="some objects", fix="draw inside a few objects")
    if lacks_background(images) and not started:
        raise InputError.of(
            found=NO_BACKGROUND,
            expected="some background, or a model to start from with --init",
            fix="draw thick background strokes where no object is; of a painted image in which every object is painted "
            "say --kind labels, of one with a value for background --class VALUE=background",
        )
    target = TARGETS[config.target]
    if find_loss(config.loss.name).interior:
        return
    if not any(_teaches_an_object(image, target) for image in images):
        found, expected, fix = target.unlearnable
        raise InputError.of(found=found, expected=expected, fix=fix)


def _teaches_an_object(image: AnnotatedImage, target: Target) -> bool:
    """Return whether the target is known at any pixel of an object."""
    for labels, boundary in annotated_parts(image):
        if target.maps:
            codes = region_codes(labels, boundary)
            known = (pkgutil.resolve_name(target.maps)(codes)[-1] > 0) & (codes > 0)
        else:
            known = two_sided_pixels(labels, boundary)
        if known.any():
            return True
    return False


def annotation_sha256(images: Sequence[AnnotatedImage]) -> str | None:
    """Return the SHA-256 of all annotation, in order; None without images."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(f"{image.name} {image.labels.shape}".encode())
        digest.update(image.labels.tobytes())
        if image.boundary is not None:
            digest.update(image.boundary.tobytes())
    return digest.hexdigest() if images else None
