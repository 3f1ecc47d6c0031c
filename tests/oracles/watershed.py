"""The watershed of h/v maps, slowly: filters of scipy, and a queue that always takes the lowest edge next (Prim)."""

from __future__ import annotations

import heapq
from math import comb

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sketchscale.integration.watershed.config import WatershedConfig

WHOLE_STEP = 16384


def hover_labels(fields: npt.NDArray[np.float16], config: WatershedConfig) -> npt.NDArray[np.uint32]:
    foreground = fields[2].astype(np.float64) >= config.threshold
    height = energy(fields, config.window)
    marker = opened(filled(foreground & (height < round(config.edge * WHOLE_STEP)), config.holes), config.opening)
    trees = flooded(foreground, np.where(marker, -WHOLE_STEP, height), ndimage.label(marker)[0])
    return numbered(trees, config)


def energy(fields: npt.NDArray[np.float16], window: int) -> npt.NDArray[np.int64]:
    v, h = (np.rint(np.clip(plane.astype(np.float64), -1, 1) * 1024).astype(np.int64) for plane in fields[:2])
    across = [comb(window - 1, k) for k in range(window)]
    along = np.convolve([comb(window - 3, k) for k in range(window - 2)], [-1, 0, 1])
    half = scaled([int(value) for value in along[window // 2 + 1 :]], 512)
    rise, mean = np.concatenate([-half[::-1], [0], half]), scaled(across, 1024)
    falls = []
    for plane, axis in ((v, 0), (h, 1)):
        slope = ndimage.correlate1d(plane, rise.astype(float), axis=axis, mode="nearest", output=np.float64)
        falls.append(-ndimage.correlate1d(slope, mean.astype(float), axis=1 - axis, mode="nearest"))
    return np.clip(np.floor(np.maximum(*falls) / 65536), -WHOLE_STEP, WHOLE_STEP - 1).astype(np.int64)


def scaled(values: list[int], total: int) -> npt.NDArray[np.int64]:
    weights = np.array([int(np.floor(value * total / sum(values) + 0.5)) for value in values], np.int64)
    weights[np.argmax(weights)] += total - weights.sum()
    return weights


def filled(mask: npt.NDArray[np.bool_], largest: int) -> npt.NDArray[np.bool_]:
    result = mask.copy()
    parts, count = ndimage.label(~mask)
    for part in range(1, count + 1):
        hole = parts == part
        border = hole[0].any() or hole[-1].any() or hole[:, 0].any() or hole[:, -1].any()
        if hole.sum() <= largest and not border:
            result |= hole
    return result


def opened(mask: npt.NDArray[np.bool_], radius: int) -> npt.NDArray[np.bool_]:
    if radius == 0:
        return mask
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = np.abs(x) <= np.floor(radius * np.sqrt(1 - (y / radius) ** 2) + 0.5)
    return np.asarray(ndimage.binary_dilation(ndimage.binary_erosion(mask, disc, border_value=1), disc))


def flooded(
    foreground: npt.NDArray[np.bool_], height: npt.NDArray[np.int64], markers: npt.NDArray[np.int32]
) -> npt.NDArray[np.int64]:
    """Trees 1, 2, ...; 0 outside of the foreground."""
    rows, columns = foreground.shape
    trees = np.where(foreground, markers, 0).astype(np.int64)
    queue: list[tuple[int, int, int, int, int, int]] = []

    def look_around(y: int, x: int) -> None:
        for a, b in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= a < rows and 0 <= b < columns and foreground[a, b] and not trees[a, b]:
                first, down = min((y, x), (a, b)), int(a != y)
                place = 2 * (first[0] * columns + first[1]) + down
                high, low = sorted((int(height[y, x]), int(height[a, b])), reverse=True)
                heapq.heappush(queue, (high, low, place, a, b, int(trees[y, x])))

    for y, x in np.argwhere(trees > 0).tolist():
        look_around(y, x)
    while queue:
        *_, y, x, tree = heapq.heappop(queue)
        if not trees[y, x]:
            trees[y, x] = tree
            look_around(y, x)
    alone = ndimage.label(foreground & (trees == 0))[0]
    return np.where(alone > 0, alone + trees.max(initial=0), trees)


def numbered(trees: npt.NDArray[np.int64], config: WatershedConfig) -> npt.NDArray[np.uint32]:
    labels = np.zeros(trees.shape, np.uint32)
    ids, first, area = np.unique(trees, return_index=True, return_counts=True)
    largest = np.inf if config.max_size is None else config.max_size
    kept = [(f, i) for i, f, a in zip(ids, first, area, strict=True) if i and config.min_size <= a <= largest]
    for number, (_, tree) in enumerate(sorted(kept), start=1):
        labels[trees == tree] = number
    return labels
