"""Object features by scikit-image and numpy on the whole image, under our column names."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.feature import graycomatrix, graycoprops
from skimage.measure import perimeter_crofton, regionprops

NAMES = {
    "area": "area",
    "axis_major": "axis_major_length",
    "axis_minor": "axis_minor_length",
    "eccentricity": "eccentricity",
    "equivalent_diameter": "equivalent_diameter_area",
    "extent": "extent",
    "euler_number": "euler_number",
    "orientation": "orientation",
}


def object_features(labels, image, spacing=(1.0, 1.0)):
    """One dict an object, in order of label; `image` is (c, y, x), intensities under `intensity_mean_<c>` etc."""
    rows = []
    for region in regionprops(labels.astype(np.int64)):
        row = {ours: getattr(region, theirs) for ours, theirs in NAMES.items()}
        row |= {"label": region.label, "perimeter": perimeter_crofton(region.image, directions=4)}
        row |= dict(zip(("y", "x"), region.centroid, strict=True))
        row |= dict(zip(("box_y_start", "box_x_start", "box_y_stop", "box_x_stop"), region.bbox, strict=True))
        for c, plane in enumerate(image):
            values = plane[labels == region.label].astype(np.float64)
            row |= {f"intensity_{k}_c{c}": getattr(np, k)(values) for k in ("mean", "std", "min", "max", "sum")}
        rows.append(row)
    for row, region in zip(rows, regionprops(labels.astype(np.int64), spacing=spacing), strict=True):
        row |= {"axis_major_um": region.axis_major_length, "axis_minor_um": region.axis_minor_length}
        row |= {"area_um2": region.area, "y_um": region.centroid[0], "x_um": region.centroid[1]}
    return rows


def crop_features(labels, image, ranges, spacing=(1.0, 1.0), levels=32):
    """What needs whole objects, from the whole image: one dict an object, in order of label."""
    rows = []
    regions = regionprops(labels.astype(np.int64))
    scaled = regionprops(labels.astype(np.int64), spacing=spacing)
    centroids = np.array([region.centroid for region in regions])
    for region, region_um in zip(regions, scaled, strict=True):
        mask = labels == region.label
        row = {
            "label": region.label,
            "solidity": region.solidity,
            "feret_diameter_max": region.feret_diameter_max,
            "feret_diameter_max_um": region_um.feret_diameter_max,
            "touching_count": len(set(labels[dilate(mask)].tolist()) - {0, region.label}),
        }
        row |= neighbour_features(centroids, region.centroid, spacing)
        near = np.hypot(*(centroids - region.centroid).T) <= 100.0
        others = [other.area for other, is_near in zip(regions, near, strict=True) if is_near and other is not region]
        row["neighbour_area_mean"] = float(np.mean(others)) if others else None
        row["neighbour_area_mean_um2"] = float(np.mean(others)) * spacing[0] * spacing[1] if others else None
        ring = ring_of(mask, labels)
        for c, plane in enumerate(image.astype(np.float64)):
            row |= channel_features(plane, mask, ring, ranges[c], levels, f"c{c}")
        rows.append(row)
    return rows


def dilate(mask):
    """The mask and the eight neighbours of its pixels."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    return np.any([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)


def neighbour_features(centroids, centroid, spacing, radius=100.0):
    """Nearest other centroid in px and um, and how many lie within the radius; by all distances."""
    steps = centroids - centroid
    px, um = np.sort(np.hypot(*steps.T)), np.sort(np.hypot(*(steps * spacing).T))
    return {
        "nearest_distance": px[1] if len(px) > 1 else None,
        "nearest_distance_um": um[1] if len(um) > 1 else None,
        "neighbour_count": int((px <= radius).sum()) - 1,
    }


def ring_of(mask, labels):
    """Background pixels 3 to 8 px from the object."""
    away = distance_transform_edt(~mask) if not mask.all() else np.zeros(mask.shape)
    return (away >= 3) & (away <= 8) & (labels == 0)


def channel_features(plane, mask, ring, span, levels, name):
    """Percentiles, gradients, textures and ring of one object in one channel."""
    slopes = [np.gradient(plane, axis=axis) if n > 1 else np.zeros(plane.shape) for axis, n in enumerate(plane.shape)]
    slope = np.hypot(*slopes)[mask]
    quantiles = dict(
        zip(("p05", "p25", "p50", "p75", "p95"), np.percentile(plane[mask], [5, 25, 50, 75, 95]), strict=True)
    )
    row = {f"intensity_{k}_{name}": value for k, value in quantiles.items()}
    row |= {f"gradient_mean_{name}": slope.mean(), f"gradient_std_{name}": slope.std()}
    row |= {f"ring_mean_{name}": plane[ring].mean() if ring.any() else None}
    row |= {f"ring_std_{name}": plane[ring].std() if ring.any() else None}
    return row | {f"texture_{k}_{name}": v for k, v in texture_features(plane, mask, span, levels).items()}


def texture_features(plane, mask, span, levels):
    """scikit-image's co-occurrence of levels 1 to `levels`; level 0 is outside the object, and dropped."""
    low, high = span
    level = np.floor((plane - low) * (levels / (high - low))) if high > low else np.zeros(plane.shape)
    coded = np.where(mask, np.clip(level, 0, levels - 1) + 1, 0).astype(np.uint8)
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    counts = graycomatrix(coded, [1], angles, levels + 1, symmetric=True)[1:, 1:].sum(axis=3, keepdims=True)
    if not counts.any():
        return dict.fromkeys(("contrast", "correlation", "homogeneity", "energy"))
    share = counts / counts.sum()
    return {k: graycoprops(share, k)[0, 0] for k in ("contrast", "correlation", "homogeneity", "energy")}
