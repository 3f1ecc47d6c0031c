"""Preparation of patches for a network: remove context, normalise intensities, drop the mask.

    patch (C + 1, [s,] s, s) ─ surroundings set to 0 ─ normalised ─ mask kept or dropped ─▶ (C + 1 or C, [s,] s, s)

All steps depend on the patch alone, and commute with turns and flips. Percentiles of the whole plane ("plane", the
default) are applied when patches are cut; the other normalizations need the image's own intensities, so patches are cut
with ranges (0, 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from sketchscale.errors import InputError, UnknownNameError

__all__ = ["NORMALIZATIONS", "PatchOptions", "Patches", "prepare_patches"]

Patches = npt.NDArray[np.float32]


def _min_max(patches: Patches) -> Patches:
    """Scale all channels of a patch together to 0 ... 1, keeping their ratio; a constant patch becomes 0."""
    axes = tuple(range(1, patches.ndim))
    low, high = patches.min(axis=axes, keepdims=True), patches.max(axis=axes, keepdims=True)
    scaled: Patches = (patches - low) / np.where(high > low, high - low, np.float32(1)).astype(np.float32)
    return scaled


def _max(patches: Patches) -> Patches:
    """Divide all channels of a patch by their largest value, if it is positive."""
    high = patches.max(axis=tuple(range(1, patches.ndim)), keepdims=True)
    scaled: Patches = np.divide(patches, np.where(high > 0, high, np.float32(1)), dtype=np.float32)
    return scaled


def _as_is(patches: Patches) -> Patches:
    return patches


NORMALIZATIONS: dict[str, Callable[[Patches], Patches]] = {
    "plane": _as_is,
    "min-max": _min_max,
    "max": _max,
    "none": _as_is,
}
"""Functions of the (n, C, ...) intensities of n patches. All but "plane" get the image's own values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchOptions:
    """Preparation of patches.

    Attributes:
        normalization: name in NORMALIZATIONS. "plane": percentiles of the whole plane become 0 and 1, so that
            brightness can separate classes; "min-max" and "max": of each patch, so that it cannot; "none": the image's
            own values.
        mask: pass the object's mask as the last channel; without it only the position in the centre marks the object.
        context: pixels around the object that are kept (Euclidean distance to its mask); the rest becomes 0. None
            keeps everything.
        mirror: continue the image beyond its border as its mirror image. Without it (classifiers of 0.1 and SVETLANA's)
            pixels beyond the border are 0, and a network may learn that a dark stripe belongs to a class.
    """

    normalization: str = "plane"
    mask: bool = True
    context: float | None = None
    mirror: bool = False

    def __post_init__(self) -> None:
        if self.normalization not in NORMALIZATIONS:
            raise UnknownNameError.among("normalization", self.normalization, NORMALIZATIONS)
        if self.context is not None and not self.context >= 0:
            raise InputError.of(
                found=f"a context of {self.context} px", expected="0 px or more", fix="leave it out to keep everything"
            )


def prepare_patches(patches: Patches, options: PatchOptions) -> Patches:
    """Return patches as input for a network.

    Args:
        patches: (n, C + 1, [s,] s, s): channels, then the object's mask as 0 and 1.

    Returns:
        (n, C + 1 or C, [s,] s, s); the array itself if there is nothing to do.

    Source: SVETLANA for the choices (Cazorla et al.); its dilation is by a square, ours by a disc.

    >>> patches = np.zeros((1, 2, 4, 4), np.float32)
    >>> patches[0, 0], patches[0, 1, 1, 1] = 5, 1
    >>> prepare_patches(patches, PatchOptions(context=1))[0, 0]
    array([[0., 5., 0., 0.],
           [5., 5., 5., 0.],
           [0., 5., 0., 0.],
           [0., 0., 0., 0.]], dtype=float32)
    """
    if options == PatchOptions(mirror=options.mirror):
        return patches
    channels, masks = patches[:, :-1], patches[:, -1:]
    if options.context is not None:
        near = np.stack([_near(mask[0] > 0, options.context) for mask in masks]) if len(masks) else masks[:, 0] > 0
        channels = np.where(near[:, None], channels, np.float32(0))
    if channels.size:
        channels = NORMALIZATIONS[options.normalization](channels)
    return np.concatenate([channels, masks], axis=1) if options.mask else np.ascontiguousarray(channels)


def _near(mask: npt.NDArray[np.bool_], distance: float) -> npt.NDArray[np.bool_]:
    """Return the pixels within a distance of the mask; none if it is empty."""
    if not mask.any():
        return mask
    near: npt.NDArray[np.bool_] = distance_transform_edt(~mask) <= distance
    return near
