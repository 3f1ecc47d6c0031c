"""Object features by scikit-image and numpy on the whole plane or volume, under our column names."""

from __future__ import annotations

import functools
import itertools
import warnings

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt
from skimage.feature import graycoprops
from skimage.measure import perimeter_crofton, regionprops

NAMES = {
    "axis_major": "axis_major_length",
    "axis_minor": "axis_minor_length",
    "equivalent_diameter": "equivalent_diameter_area",
    "extent": "extent",
    "euler_number": "euler_number",
}
PLANAR = {"area": "area", "eccentricity": "eccentricity", "orientation": "orientation"}


def object_features(labels, image, spacing=None):
    """One dict an object, in order of label; intensities of channel c are under `intensity_mean_c<c>` etc."""
    rows, axes = [], "zyx"[-labels.ndim :]
    spacing = spacing or (1.0,) * labels.ndim
    ends = [f"box_{axis}_{end}" for end in ("start", "stop") for axis in axes]
    for region in regions(labels):
        names = NAMES | (PLANAR if labels.ndim == 2 else {"volume": "area"})
        row = {"label": region.label} | {ours: getattr(region, theirs) for ours, theirs in names.items()}
        row |= dict(zip(axes, region.centroid, strict=True)) | dict(zip(ends, region.bbox, strict=True))
        mask = labels == region.label
        if labels.ndim == 2:
            row["perimeter"] = perimeter_crofton(region.image, directions=4)
        else:
            row |= {"axis_middle": middle_axis(mask, (1.0, 1.0, 1.0)), "axis_middle_um": middle_axis(mask, spacing)}
            row |= {"surface": surface(mask, (1.0, 1.0, 1.0)), "surface_um2": surface(mask, spacing)}
        for c, channel in enumerate(image):
            values = channel[mask].astype(np.float64)
            row |= {f"intensity_{k}_c{c}": getattr(np, k)(values) for k in ("mean", "std", "min", "max", "sum")}
        rows.append(row)
    for row, region in zip(rows, regions(labels, spacing), strict=True):
        row |= {"axis_major_um": region.axis_major_length, "axis_minor_um": region.axis_minor_length}
        row |= {"area_um2" if labels.ndim == 2 else "volume_um3": region.area}
        row |= {"equivalent_diameter_um": region.equivalent_diameter_area}
        row |= {f"{axis}_um": c for axis, c in zip(axes, region.centroid, strict=True)}
    return rows


def regions(labels, spacing=None):
    """scikit-image's, which warns of objects that are flat."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return regionprops(labels.astype(np.int64), spacing=spacing or (1.0,) * labels.ndim)


def middle_axis(mask, spacing):
    """Of the ellipsoid with the variances of the voxel centres."""
    places = np.argwhere(mask) * np.array(spacing)
    return np.sqrt(20 * max(0, np.linalg.eigvalsh(np.atleast_2d(np.cov(places.T, bias=True)))[1]))


def surface(mask, spacing):
    """Crofton: every crossing of every line through voxel centres."""
    padded = np.pad(mask, 2)
    total = 0.0
    for way, share in zip(ways(3), shares(spacing), strict=True):
        crossings = np.count_nonzero(padded != np.roll(padded, way, axis=(0, 1, 2)))
        total += 2 * share * crossings * np.prod(spacing) / np.linalg.norm(np.array(way) * spacing)
    return total


def ways(axes):
    """The 4 or 13 directions to a neighbour; the opposite ones are the same lines."""
    return [way for way in itertools.product((-1, 0, 1), repeat=axes) if way > (0,) * axes]


@functools.cache
def shares(spacing):
    """Of the sphere: which of the directions random points are nearest to."""
    steps = np.array(ways(3)) * np.array(spacing)
    points = np.random.default_rng(0).normal(size=(200_000, 3))
    nearest = np.abs(points @ (steps / np.linalg.norm(steps, axis=1)[:, None]).T).argmax(axis=1)
    return np.bincount(nearest, minlength=len(steps)) / len(points)


def crop_features(labels, image, ranges, spacing=None, levels=32):
    """What needs whole objects, from the whole image: one dict an object, in order of label."""
    rows, spacing = [], spacing or (1.0,) * labels.ndim
    section = spacing[0] / spacing[-1] if labels.ndim == 3 else 1.0
    found = regions(labels)
    centroids = np.array([region.centroid for region in found])
    for region, region_um in zip(found, regions(labels, spacing), strict=True):
        mask = labels == region.label
        row = {
            "label": region.label,
            "touching_count": len(set(labels[dilate(mask)].tolist()) - {0, region.label}),
        }
        if labels.ndim == 2:
            row |= {"solidity": region.solidity, "feret_diameter_max": region.feret_diameter_max}
            row["feret_diameter_max_um"] = region_um.feret_diameter_max
        row |= neighbour_features(centroids, region.centroid, spacing)
        near = np.linalg.norm(centroids - region.centroid, axis=1) <= 100.0
        others = [other.area for other, is_near in zip(found, near, strict=True) if is_near and other is not region]
        size, unit = ("area", "um2") if labels.ndim == 2 else ("volume", "um3")
        row[f"neighbour_{size}_mean"] = float(np.mean(others)) if others else None
        row[f"neighbour_{size}_mean_{unit}"] = float(np.mean(others)) * np.prod(spacing) if others else None
        ring = ring_of(mask, labels, section)
        for c, channel in enumerate(image.astype(np.float64)):
            row |= channel_features(channel, mask, ring, ranges[c], levels, f"c{c}", section)
        rows.append(row)
    return rows


def dilate(mask):
    """The mask and all neighbours of its pixels."""
    return binary_dilation(mask, np.ones((3,) * mask.ndim))


def neighbour_features(centroids, centroid, spacing, radius=100.0):
    """Nearest other centroid in px and um, and how many lie within the radius; by all distances."""
    steps = centroids - centroid
    px, um = (np.sort(np.linalg.norm(s, axis=1)) for s in (steps, steps * spacing))
    return {
        "nearest_distance": px[1] if len(px) > 1 else None,
        "nearest_distance_um": um[1] if len(um) > 1 else None,
        "neighbour_count": int((px <= radius).sum()) - 1,
    }


def ring_of(mask, labels, section):
    """Background pixels 3 to 8 px from the object."""
    sampling = (section, 1.0, 1.0)[-mask.ndim :]
    away = distance_transform_edt(~mask, sampling) if not mask.all() else np.zeros(mask.shape)
    return (away >= 3) & (away <= 8) & (labels == 0)


def channel_features(channel, mask, ring, span, levels, name, section):
    """Percentiles, gradients, textures and ring of one object in one channel."""
    steps = (section, 1.0, 1.0)[-mask.ndim :]
    slopes = [
        np.gradient(channel, step, axis=axis) if channel.shape[axis] > 1 else np.zeros(channel.shape)
        for axis, step in enumerate(steps)
    ]
    slope = np.linalg.norm(slopes, axis=0)[mask]
    quantiles = dict(
        zip(("p05", "p25", "p50", "p75", "p95"), np.percentile(channel[mask], [5, 25, 50, 75, 95]), strict=True)
    )
    row = {f"intensity_{k}_{name}": value for k, value in quantiles.items()}
    row |= {f"gradient_mean_{name}": slope.mean(), f"gradient_std_{name}": slope.std()}
    row |= {f"ring_mean_{name}": channel[ring].mean() if ring.any() else None}
    row |= {f"ring_std_{name}": channel[ring].std() if ring.any() else None}
    return row | {f"texture_{k}_{name}": v for k, v in texture_features(channel, mask, span, levels).items()}


def texture_features(channel, mask, span, levels):
    """scikit-image's properties of all pairs of neighbours inside the object."""
    low, high = span
    level = np.floor((channel - low) * (levels / (high - low))) if high > low else np.zeros(channel.shape)
    level, counts = np.clip(level, 0, levels - 1).astype(int), np.zeros((levels, levels, 1, 1))
    for way in ways(mask.ndim):
        here = tuple(slice(max(0, -w), n - max(0, w)) for w, n in zip(way, mask.shape, strict=True))
        there = tuple(slice(max(0, w), n - max(0, -w)) for w, n in zip(way, mask.shape, strict=True))
        both = mask[here] & mask[there]
        np.add.at(counts[..., 0, 0], (level[here][both], level[there][both]), 1)
    counts = counts + counts.swapaxes(0, 1)
    if not counts.any():
        return dict.fromkeys(("contrast", "correlation", "homogeneity", "energy"))
    share = counts / counts.sum()
    return {k: graycoprops(share, k)[0, 0] for k in ("contrast", "correlation", "homogeneity", "energy")}
