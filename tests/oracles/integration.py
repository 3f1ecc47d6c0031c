"""Integration, slow and obvious: one pixel after the other in Python integers, every pair of sinks compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from sketchscale.integration.config import IntegrationConfig

Pixel = tuple[int, int]
Vector = tuple[int, int]


def unit_flow(fields: npt.NDArray[np.float16], config: IntegrationConfig) -> dict[Pixel, Vector]:
    """Flow of every foreground pixel, unit length, in 1/16384."""
    flow = {}
    for y, x in np.ndindex(*fields.shape[1:]):
        if float(fields[2, y, x]) > config.threshold:
            vy, vx = np.float32(fields[0, y, x]), np.float32(fields[1, y, x])
            length = max(np.sqrt(vy * vy + vx * vx), np.float32(1e-6))
            flow[y, x] = (round(float(vy / length) * 16384), round(float(vx / length) * 16384))
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
    flow = unit_flow(fields, config)
    shape = fields.shape[1:]

    def edge(y: int, x: int) -> Pixel:
        return min(max(y, 0), shape[0] - 1), min(max(x, 0), shape[1] - 1)

    def look(y: int, x: int) -> Vector:
        return flow.get(edge(y, x), (0, 0))

    walk = _suppressed if config.method == "suppressed" else _bilinear
    ends = {}
    for q in flow:
        dy, dx = walk(q, look, config)
        ends[q] = edge(q[0] + dy, q[1] + dx)
    return ends


def _suppressed(q: Pixel, look, config: IntegrationConfig) -> Vector:  # type: ignore[no-untyped-def]
    u, p = (0, 0), look(*q)
    for t in range(config.steps):
        v = look(q[0] + nearest(u[0], 28), q[1] + nearest(u[1], 28))
        p = (towards_zero(v[0] + p[0]), towards_zero(v[1] + p[1]))
        gain = round(16384 / (1 + t))
        u = (u[0] + gain * p[0], u[1] + gain * p[1])
    return nearest(u[0], 28), nearest(u[1], 28)


def _bilinear(q: Pixel, look, config: IntegrationConfig) -> Vector:  # type: ignore[no-untyped-def]
    u = (0, 0)
    for _ in range(config.steps):
        (y, fy), (x, fx) = divmod(u[0], 16384), divmod(u[1], 16384)
        corners = [[look(q[0] + y + i, q[1] + x + j) for j in (0, 1)] for i in (0, 1)]
        step = []
        for axis in (0, 1):
            top, bottom = ((c[0][axis] * (16384 - fx) + c[1][axis] * fx + 8192) // 16384 for c in corners)
            step.append((top * (16384 - fy) + bottom * fy + 8192) // 16384)
        u = (u[0] + step[0], u[1] + step[1])
    return nearest(u[0], 14), nearest(u[1], 14)


def components(nodes: list[Pixel], radius: int) -> dict[Pixel, int]:
    """Every pair compared; a number per component, that of its first node in order."""
    group = {node: i for i, node in enumerate(nodes)}
    for a in nodes:
        for b in nodes:
            if max(abs(a[0] - b[0]), abs(a[1] - b[1])) <= radius and group[a] != group[b]:
                low, high = sorted((group[a], group[b]))
                group = {node: low if number == high else number for node, number in group.items()}
    return group


def raw_flow(fields: npt.NDArray[np.float16], q: Pixel) -> Vector:
    """Flow as stored, in 1/4096, at most 8 px long on an axis."""
    y, x = (round(min(max(float(fields[axis, q[0], q[1]]), -8.0), 8.0) * 4096) for axis in (0, 1))
    return y, x


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
    for q, a in piece.items():
        peak[a] = max(peak.get(a, 0.5), float(fields[2][q]))
    borders: dict[tuple[int, int], list[tuple[int, float]]] = {}
    facing: dict[tuple[int, int], list[tuple[Pixel, Pixel]]] = {}
    for (y, x), a in piece.items():
        for there in ((y, x + 1), (y + 1, x)):
            b = piece.get(there, a)
            if a != b:
                product = sum(m * n for m, n in zip(raw_flow(fields, (y, x)), raw_flow(fields, there), strict=True))
                height = min(float(fields[2, y, x]), float(fields[2][there]))
                borders.setdefault((min(a, b), max(a, b)), []).append((product, height))
                facing.setdefault((min(a, b), max(a, b)), []).append((ends[y, x], ends[there]))
    merged = {a: a for a in piece.values()}
    for (a, b), pairs in borders.items():
        agree = sum(product - round(config.agreement * 2**24) for product, _ in pairs) > 0
        high_enough = max(height for _, height in pairs) > config.saddle * min(peak[a], peak[b])
        if (agree and high_enough) or ends_say_one(facing[a, b], config):
            low, high = sorted((merged[a], merged[b]))
            merged = {k: low if m == high else m for k, m in merged.items()}
    return merged


def integrate(fields: npt.NDArray[np.float16], config: IntegrationConfig) -> npt.NDArray[np.uint32]:
    """Final labels of a whole image."""
    ends = end_points(fields, config)
    group = components(sorted(set(ends.values())), config.link_radius)
    piece = {q: group[end] for q, end in ends.items()}
    merged = joined(piece, ends, fields, config)
    labels = np.zeros(fields.shape[1:], np.uint32)
    members: dict[int, list[Pixel]] = {}
    for q in sorted(piece):
        members.setdefault(merged[piece[q]], []).append(q)
    largest = math.inf if config.max_size is None else config.max_size
    kept = [pixels for pixels in members.values() if config.min_size <= len(pixels) <= largest]
    for number, pixels in enumerate(kept, start=1):
        for q in pixels:
            labels[q] = number
    return labels
