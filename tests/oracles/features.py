"""Object features by scikit-image on the whole image, under our column names."""

from __future__ import annotations

import numpy as np
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
