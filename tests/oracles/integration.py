"""Integration, slow and obvious: one pixel after the other in Python integers, every pair compared; any axes."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from sketchscale.integration.config import IntegrationConfig

Pixel = tuple[int, ...]


def unit_flow(fields: npt.NDArray[np.float16], config: IntegrationConfig) -> dict[Pixel, Pixel]:
    """Flow of every foreground pixel, unit length, in 1/16384; smaller squares are added first."""
    flow = {}
    for q in np.ndindex(*fields.shape[1:]):
        if float(fields[-1][q]) > config.threshold:
            v = [np.float32(component[q]) for component in fields[:-1]]
            length = max(np.sqrt(functools.reduce(operator.add, sorted(a * a for a in v))), np.float32(1e-6))
            flow[q] = tuple(round(float(a / length) * 16384) for a in v)
    return flow


def nearest(u: int, bits: int) -> int:
    """u / 2**bits to the nearest integer, halves away from zero."""
    size = math.floor(Fraction(abs(u), 2**bits) + Fraction(1, 2))
    return size if u >= 0 else -size


def towards_zero(total: int) -> int:
    """Half of a sum, towards zero."""
    return abs(total) // 2 if total >= 0 else -(abs(total) // 2)


def end_points(fields: npt.NDArray[np.float16], config: IntegrationConfig) -> dict[Pixel, Pixel]:
    """The end pixel of every foreground pixel."""
    flow, shape = unit_flow(fields, config), fields.shape[1:]

    def edge(q: Sequence[int]) -> Pixel:
        return tuple(min(max(a, 0), n - 1) for a, n in zip(q, shape, strict=True))

    def look(q: Sequence[int]) -> Pixel:
        return flow.get(edge(q), (0,) * len(shape))

    walk = _suppressed if config.method == "suppressed" else _bilinear
    return {q: edge([a + d for a, d in zip(q, walk(q, look, config), strict=True)]) for q in flow}


def _suppressed(q: Pixel, look: Callable[[Sequence[int]], Pixel], config: IntegrationConfig) -> Pixel:
    u, p = (0,) * len(q), look(q)
    for t in range(config.steps):
        v = look([a + nearest(d, 28) for a, d in zip(q, u, strict=True)])
        p = tuple(towards_zero(a + b) for a, b in zip(v, p, strict=True))
        u = tuple(a + round(16384 / (1 + t)) * b for a, b in zip(u, p, strict=True))
    return tuple(nearest(d, 28) for d in u)


def _bilinear(q: Pixel, look: Callable[[Sequence[int]], Pixel], config: IntegrationConfig) -> Pixel:
    """Of planes."""
    u = (0, 0)
    for _ in range(config.steps):
        (y, fy), (x, fx) = divmod(u[0], 16384), divmod(u[1], 16384)
        corners = [[look((q[0] + y + i, q[1] + x + j)) for j in (0, 1)] for i in (0, 1)]
        step = []
        for axis in (0, 1):
            top, bottom = ((c[0][axis] * (16384 - fx) + c[1][axis] * fx + 8192) // 16384 for c in corners)
            step.append((top * (16384 - fy) + bottom * fy + 8192) // 16384)
        u = (u[0] + step[0], u[1] + step[1])
    return nearest(u[0], 14), nearest(u[1], 14)


def components(counts: dict[Pixel, int], config: IntegrationConfig) -> dict[Pixel, int]:
    """Every pair of end points compared; a number per component, that of its first node in order."""
    nodes = sorted(counts)

    def near(a: Pixel, b: Pixel) -> int:
        return max(abs(m - n) for m, n in zip(a, b, strict=True))

    crowded = [a for a in nodes if counts[a] >= config.crowd]
    links = [(a, b) for a, b in itertools.combinations(crowded, 2) if near(a, b) <= config.link_radius]
    for a in set(nodes) - set(crowded):
        within = [b for b in nodes if near(a, b) <= config.climb]
        links.append((a, min(within, key=lambda b: (-counts[b], b))))
    group = {node: i for i, node in enumerate(nodes)}
    for a, b in links:
        low, high = sorted((group[a], group[b]))
        if low != high:
            group = {node: low if number == high else number for node, number in group.items()}
    return group


def raw_flow(fields: npt.NDArray[np.float16], q: Pixel) -> list[int]:
    """Flow as stored, in 1/4096, at most 8 px long on an axis."""
    return [round(min(max(float(component[q]), -8.0), 8.0) * 4096) for component in fields[:-1]]


def ends_say_one(pairs: list[tuple[Sequence[int], Sequence[int]]], config: IntegrationConfig) -> bool:
    """More than the share of the pairs of ends are near each other; the share rounded to 1 / 2^24."""
    if config.join_share is None:
        return False
    near = sum(sum((m - n) ** 2 for m, n in zip(a, b, strict=True)) <= config.join_radius**2 for a, b in pairs)
    return near > Fraction(round(config.join_share * 2**24), 2**24) * len(pairs)


def joined(
    piece: dict[Pixel, int], ends: dict[Pixel, Pixel], fields: npt.NDArray[np.float16], config: IntegrationConfig
) -> dict[int, int]:
    """The object of every piece, after looking at all common borders."""
    peak: dict[int, float] = {}
    borders: dict[tuple[int, int], list[tuple[int, float]]] = {}
    facing: dict[tuple[int, int], list[tuple[Sequence[int], Sequence[int]]]] = {}
    for q, a in piece.items():
        peak[a] = max(peak.get(a, -math.inf), float(fields[-1][q]))
        for axis in range(len(q)):
            there = tuple(c + (i == axis) for i, c in enumerate(q))
            b = piece.get(there, a)
            if a != b:
                product = sum(m * n for m, n in zip(raw_flow(fields, q), raw_flow(fields, there), strict=True))
                product = min(max(product, -(2**24)), 2**24)
                height = min(float(fields[-1][q]), float(fields[-1][there]))
                borders.setdefault((min(a, b), max(a, b)), []).append((product, height))
                facing.setdefault((min(a, b), max(a, b)), []).append((ends[q], ends[there]))
    merged = {a: a for a in piece.values()}
    for (a, b), pairs in borders.items():
        flow = Fraction(8 * sum(product for product, _ in pairs), len(pairs) * 2**24)
        allowed = Fraction(round(config.prominence * 2**24), 2**24) + flow
        rise = Fraction(min(peak[a], peak[b])) - Fraction(max(height for _, height in pairs))
        if rise < allowed or ends_say_one(facing[a, b], config):
            low, high = sorted((merged[a], merged[b]))
            merged = {k: low if m == high else m for k, m in merged.items()}
    return merged


def integrate(fields: npt.NDArray[np.float16], config: IntegrationConfig) -> npt.NDArray[np.uint32]:
    """Final labels of a whole image."""
    ends = end_points(fields, config)
    group = components(Counter(ends.values()), config)
    piece = {q: group[end] for q, end in ends.items()}
    merged = joined(piece, ends, fields, config)
    members: dict[int, list[Pixel]] = {}
    for q in sorted(piece):
        members.setdefault(merged[piece[q]], []).append(q)
    largest = math.inf if config.max_size is None else config.max_size
    labels = np.zeros(fields.shape[1:], np.uint32)
    kept = [pixels for pixels in members.values() if config.min_size <= len(pixels) <= largest]
    for number, pixels in enumerate(kept, start=1):
        for q in pixels:
            labels[q] = number
    return labels
