"""Layouts painted one object at a time with whole-image masks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from skimage.measure import label


def place_one_by_one(
    pixels: npt.NDArray[np.int64], shape: tuple[int, int], diameter: float, radii: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.uint32], list[float]]:
    """Labels, and the share of each painted outline that was taken."""
    labels = np.zeros(shape, np.uint32)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for i, (v, u) in enumerate(pixels):
        others = np.delete(pixels, i, 0)
        nearest = np.sqrt(((others - (v, u)) ** 2).sum(1)).min()
        labels[(y - v) ** 2 + (x - u) ** 2 <= min(nearest / 3, diameter / 6) ** 2] = i + 1
    shares = []
    for i, (v, u) in enumerate(pixels):
        place = np.arctan2(y - v, x - u) / (2 * np.pi) % 1 * radii.shape[2]
        knot = place.astype(int) % radii.shape[2]
        for outline in radii[i]:
            edge = (1 - (place - knot)) * outline[knot] + (place - knot) * outline[(knot + 1) % radii.shape[2]]
            inside = (y - v) ** 2 + (x - u) ** 2 <= edge**2
            taken = (inside & (labels != 0) & (labels != i + 1)).sum() / inside.sum()
            if taken <= 0.05:
                free = (inside & (labels == 0)) | (labels == i + 1)
                pieces = label(free, connectivity=1)
                labels[pieces == pieces[v, u]] = i + 1
                shares.append(float(taken))
                break
    return labels, shares
