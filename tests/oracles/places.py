"""Choosing places and judging uncertainty, as plainly as their definitions: loops over pixels and candidates."""

from __future__ import annotations

import math
import statistics


def uncertainty(views, threshold):
    """Per pixel, the larger of 4 p (1 - p) and p (1 - |v|)."""
    flips, _, height, width = views.shape
    result = [[0.0] * width for _ in range(height)]
    for y in range(height):
        for x in range(width):
            p = sum(views[k, 2, y, x] > threshold for k in range(flips)) / flips
            v = [0.0, 0.0]
            for k in range(flips):
                length = math.hypot(views[k, 0, y, x], views[k, 1, y, x])
                for axis in (0, 1):
                    v[axis] += views[k, axis, y, x] / max(1.0, length) / flips
            result[y][x] = max(4 * p * (1 - p), p * (1 - math.hypot(*v)))
    return result


def choose(uncertainties, looks, known, n):
    """(index, score) of each choice: greedy, by uncertainty times capped distance to the nearest known or chosen."""
    spreads = [statistics.pstdev(column) for column in zip(*looks, strict=True)]

    def distance(a, b):
        return math.sqrt(sum(((x - y) / s) ** 2 for x, y, s in zip(a, b, spreads, strict=True) if s > 1e-9))

    middle = [statistics.fmean(column) for column in zip(*looks, strict=True)]
    start = [min(distance(look, k) for k in known) if known else distance(look, middle) for look in looks]
    typical = statistics.median(start) or 1.0
    seen, chosen = list(known), []
    for _ in range(min(n, len(looks))):
        best = None
        for i, look in enumerate(looks):
            if i in [c for c, _ in chosen]:
                continue
            novelty = min([1.0, *(distance(look, s) / typical for s in seen)])
            if best is None or uncertainties[i] * novelty > best[1] + 1e-12:
                best = (i, uncertainties[i] * novelty)
        chosen.append(best)
        seen.append(looks[best[0]])
    return chosen
