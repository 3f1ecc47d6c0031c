"""Refinement the obvious way: pixel by pixel, over the whole image at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sketchscale.annotations.targets import targets_from_sketch


def holes_by_flooding(labels: npt.NDArray[np.integer], share: float) -> npt.NDArray[np.int64]:
    """Owner of every pixel of a hole that is filled, 0 elsewhere."""
    owner = np.zeros(labels.shape, np.int64)
    seen = labels != 0
    sides = [step * row for row in np.eye(labels.ndim, dtype=int) for step in (1, -1)]
    for start in zip(*np.nonzero(labels == 0), strict=True):
        if seen[start]:
            continue
        stack, region, touched, open_ended = [start], [], set(), False
        seen[start] = True
        while stack:
            here = stack.pop()
            region.append(here)
            for side in sides:
                there = tuple(int(a + b) for a, b in zip(here, side, strict=True))
                if not all(0 <= a < n for a, n in zip(there, labels.shape, strict=True)):
                    open_ended = True
                elif labels[there]:
                    touched.add(int(labels[there]))
                elif not seen[there]:
                    seen[there] = True
                    stack.append(there)
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
    """The flow error, with the mask alone on the whole plane, of a volume on each section; by loops."""
    terms: list[float] = []
    sections = [(mask, fields)] if mask.ndim == 2 else [(part, fields[1:, z]) for z, part in enumerate(mask)]
    for part, seen in sections:
        taught = targets_from_sketch(part.astype(np.int64))
        for y, x in zip(*np.nonzero(part), strict=True):
            wanted = taught.flow[:, y, x]
            if taught.flow_known[y, x] and wanted.any():
                v = seen[:2, y, x].astype(np.float32)
                length = max(np.sqrt(v[0] ** 2 + v[1] ** 2), np.float32(1e-6))
                terms.append(sum(float(v[i] / length - wanted[i]) ** 2 for i in (0, 1)))
    return float(np.mean(terms)) if terms else 0.0
