"""Features of 3-D objects by scikit-image and by looking at every pair of voxels, under our column names."""

from __future__ import annotations

import functools
import itertools
import warnings

import numpy as np
from skimage.measure import regionprops

NAMES = {
    "volume": "area",
    "axis_major": "axis_major_length",
    "axis_minor": "axis_minor_length",
    "equivalent_diameter": "equivalent_diameter_area",
    "extent": "extent",
    "euler_number": "euler_number",
}
ENDS = tuple(f"box_{axis}_{end}" for end in ("start", "stop") for axis in "zyx")


def solid_features(labels, image, spacing=(1.0, 1.0, 1.0)):
    """One dict an object, in order of label; `image` is (c, z, y, x), intensities under `intensity_mean_<c>` etc."""
    rows = []
    for region in _regions(labels):
        row = {ours: getattr(region, theirs) for ours, theirs in NAMES.items()}
        row |= {"label": region.label, **dict(zip("zyx", region.centroid, strict=True))}
        row |= dict(zip(ENDS, region.bbox, strict=True))
        mask = labels == region.label
        row |= {"axis_middle": _middle_axis(mask, (1.0, 1.0, 1.0)), "axis_middle_um": _middle_axis(mask, spacing)}
        row |= {"surface": surface(mask, (1.0, 1.0, 1.0)), "surface_um2": surface(mask, spacing)}
        for c, voxels in enumerate(image):
            values = voxels[mask].astype(np.float64)
            row |= {f"intensity_{k}_c{c}": getattr(np, k)(values) for k in ("mean", "std", "min", "max", "sum")}
        rows.append(row)
    for row, region in zip(rows, _regions(labels, spacing), strict=True):
        row |= {"axis_major_um": region.axis_major_length, "axis_minor_um": region.axis_minor_length}
        row |= {"volume_um3": region.area, "equivalent_diameter_um": region.equivalent_diameter_area}
        row |= {f"{axis}_um": c for axis, c in zip("zyx", region.centroid, strict=True)}
    return rows


def _regions(labels, spacing=(1.0, 1.0, 1.0)):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of objects that are flat, in scikit-image
        return regionprops(labels.astype(np.int64), spacing=spacing)


def _middle_axis(mask, spacing):
    """Of the ellipsoid with the variances of the voxel centres."""
    places = np.argwhere(mask) * np.array(spacing)
    return np.sqrt(20 * max(0, np.linalg.eigvalsh(np.atleast_2d(np.cov(places.T, bias=True)))[1]))


def surface(mask, spacing):
    """Crofton: every crossing of every line through voxel centres."""
    ways = [w for w in itertools.product((-1, 0, 1), repeat=3) if w > (0, 0, 0)]
    padded = np.pad(mask, 2)
    total = 0.0
    for way, share in zip(ways, _shares(tuple(ways), spacing), strict=True):
        crossings = np.count_nonzero(padded != np.roll(padded, way, axis=(0, 1, 2)))
        total += 2 * share * crossings * np.prod(spacing) / np.linalg.norm(np.array(way) * spacing)
    return total


@functools.cache
def _shares(ways, spacing):
    """Of the sphere: which of these directions random points are nearest to."""
    steps = np.array(ways) * np.array(spacing)
    points = np.random.default_rng(0).normal(size=(200_000, 3))
    nearest = np.abs(points @ (steps / np.linalg.norm(steps, axis=1)[:, None]).T).argmax(axis=1)
    return np.bincount(nearest, minlength=len(ways)) / len(points)
