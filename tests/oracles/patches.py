"""Patches of objects, cut from the whole image after padding it: slow and plain."""

from __future__ import annotations

import math

import numpy as np

from sketchscale.intensity import normalize


def padded_patches(labels, image, side, ranges, mirror=False):
    """(n, c + 1, side, ...) patches in order of label, and whether each object is cropped."""
    pad = [(side, side)] * labels.ndim
    ids = np.pad(labels, pad)
    mode = "symmetric" if mirror else "constant"
    pixels = np.stack([np.pad(normalize(c[None], [r])[0], pad, mode) for c, r in zip(image, ranges, strict=True)])
    patches, cropped = [], []
    for label in np.unique(labels[labels > 0]):
        places = np.argwhere(labels == label)
        first = [math.floor(p.mean()) - side // 2 for p in places.T]
        window = tuple(slice(f + side, f + 2 * side) for f in first)
        patches.append(np.concatenate([pixels[(slice(None), *window)], (ids == label)[window][None]]))
        cropped.append(any(p.min() < f or p.max() >= f + side for p, f in zip(places.T, first, strict=True)))
    shape = (len(patches), len(image) + 1, *(side,) * labels.ndim)
    return np.array(patches, np.float32).reshape(shape), cropped
