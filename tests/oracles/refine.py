"""Refinement the obvious way: pixel by pixel, over the whole image at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sketchscale.annotations.targets import targets_from_sketch

_SIDES = ((0, 1), (1, 0), (0, -1), (-1, 0))


def holes_by_flooding(labels: npt.NDArray[np.integer], share: float) -> npt.NDArray[np.int64]:
    """Owner of every pixel of a hole that is filled, 0 elsewhere."""
    height, width = labels.shape
    owner = np.zeros(labels.shape, np.int64)
    seen = labels != 0
    for start in zip(*np.nonzero(labels == 0), strict=True):
        if seen[start]:
            continue
        stack, region, touched, open_ended = [start], [], set(), False
        seen[start] = True
        while stack:
            y, x = stack.pop()
            region.append((y, x))
            for dy, dx in _SIDES:
                v, u = y + dy, x + dx
                if not (0 <= v < height and 0 <= u < width):
                    open_ended = True
                elif labels[v, u]:
                    touched.add(int(labels[v, u]))
                elif not seen[v, u]:
                    seen[v, u] = True
                    stack.append((v, u))
        if not open_ended and len(touched) == 1:
            (label,) = touched
            if len(region) <= share * (labels == label).sum():
                for pixel in region:
                    owner[pixel] = label
    return owner


def refine_whole(
    labels: npt.NDArray[np.integer], fields: npt.NDArray[np.floating], share: float | None, limit: float | None
) -> npt.NDArray[np.int64]:
    """Labels after hole filling and the flow filter; numbered by first pixel."""
    filled = labels.astype(np.int64)
    if share is not None:
        owner = holes_by_flooding(labels, share)
        filled[owner > 0] = owner[owner > 0]
    result, number = np.zeros(labels.shape, np.int64), 0
    ids, first = np.unique(filled, return_index=True)
    for label in ids[np.argsort(first)]:
        if label and (limit is None or error_of(filled == label, fields) <= limit):
            number += 1
            result[filled == label] = number
    return result


def error_of(mask: npt.NDArray[np.bool_], fields: npt.NDArray[np.floating]) -> float:
    """The flow error, with the mask alone on the whole plane; by loops."""
    taught = targets_from_sketch(mask.astype(np.int64))
    terms = []
    for y, x in zip(*np.nonzero(mask), strict=True):
        wanted = taught.flow[:, y, x]
        if taught.flow_known[y, x] and wanted.any():
            v = fields[:2, y, x].astype(np.float32)
            length = max(np.sqrt(v[0] ** 2 + v[1] ** 2), np.float32(1e-6))
            terms.append(sum(float(v[i] / length - wanted[i]) ** 2 for i in (0, 1)))
    return float(np.mean(terms)) if terms else 0.0
