"""Integration of volumes, slow and obvious: one voxel after the other in Python integers, every pair compared."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import numpy.typing as npt

from sketchscale.integration.config import IntegrationConfig
from tests.oracles.integration import ends_say_one, nearest, towards_zero

Voxel = tuple[int, ...]


def unit_flow(fields: npt.NDArray[np.float16], config: IntegrationConfig) -> dict[Voxel, Voxel]:
    """Flow of every foreground voxel, unit length, in 1/16384; the two smaller squares are added first."""
    flow = {}
    for q in np.ndindex(*fields.shape[1:]):
        if float(fields[3][q]) > config.threshold:
            v = [np.float32(fields[axis][q]) for axis in range(3)]
            small, middle, large = sorted(a * a for a in v)
            length = max(np.sqrt((small + middle) + large), np.float32(1e-6))
            flow[q] = tuple(round(float(a / length) * 16384) for a in v)
    return flow


def end_points(fields: npt.NDArray[np.float16], config: IntegrationConfig) -> dict[Voxel, Voxel]:
    """The end voxel of every foreground voxel."""
    flow = unit_flow(fields, config)
    shape = fields.shape[1:]

    def edge(q: Voxel, u: Voxel) -> Voxel:
        return tuple(min(max(a + nearest(d, 28), 0), n - 1) for a, d, n in zip(q, u, shape, strict=True))

    ends = {}
    for q, p in flow.items():
        u: Voxel = (0, 0, 0)
        for t in range(config.steps):
            v = flow.get(edge(q, u), (0, 0, 0))
            p = tuple(towards_zero(a + b) for a, b in zip(v, p, strict=True))
            u = tuple(a + round(16384 / (1 + t)) * b for a, b in zip(u, p, strict=True))
        ends[q] = edge(q, u)
    return ends


def components(counts: dict[Voxel, int], config: IntegrationConfig) -> dict[Voxel, int]:
    """Every pair compared; a number per component."""
    nodes = sorted(counts)

    def near(a: Voxel, b: Voxel) -> int:
        return max(abs(m - n) for m, n in zip(a, b, strict=True))

    crowded = [a for a in nodes if counts[a] >= config.crowd]
    links = [(a, b) for a, b in itertools.combinations(crowded, 2) if near(a, b) <= config.link_radius]
    for a in set(nodes) - set(crowded):
        within = [b for b in nodes if near(a, b) <= config.climb]
        links += [(a, min(within, key=lambda b: (-counts[b], b)))]
    group = {node: i for i, node in enumerate(nodes)}
    for a, b in links:
        low, high = sorted((group[a], group[b]))
        group = {node: low if number == high else number for node, number in group.items()}
    return group


def joined(
    piece: dict[Voxel, int], ends: dict[Voxel, Voxel], fields: npt.NDArray[np.float16], config: IntegrationConfig
) -> dict[int, int]:
    """The object of every piece, after looking at all common borders."""

    def raw(q: Voxel) -> list[int]:
        return [round(min(max(float(fields[axis][q]), -8.0), 8.0) * 4096) for axis in range(3)]

    peak: dict[int, float] = {}
    borders: dict[tuple[int, int], list[tuple[int, float]]] = {}
    facing: dict[tuple[int, int], list[tuple[Voxel, Voxel]]] = {}
    for q, a in piece.items():
        peak[a] = max(peak.get(a, 0.5), float(fields[3][q]))
        for axis in range(3):
            there = tuple(c + (i == axis) for i, c in enumerate(q))
            b = piece.get(there, a)
            if a != b:
                product = sum(m * n for m, n in zip(raw(q), raw(there), strict=True))
                height = min(float(fields[3][q]), float(fields[3][there]))
                borders.setdefault((min(a, b), max(a, b)), []).append((product, height))
                facing.setdefault((min(a, b), max(a, b)), []).append((ends[q], ends[there]))
    merged = {a: a for a in piece.values()}
    for (a, b), pairs in borders.items():
        agree = sum(product - round(config.agreement * 2**24) for product, _ in pairs) > 0
        high_enough = max(height for _, height in pairs) > config.saddle * min(peak[a], peak[b])
        if (agree and high_enough) or ends_say_one(facing[a, b], config):
            low, high = sorted((merged[a], merged[b]))
            merged = {k: low if m == high else m for k, m in merged.items()}
    return merged


def integrate(fields: npt.NDArray[np.float16], config: IntegrationConfig) -> npt.NDArray[np.uint32]:
    """Final labels of a whole volume."""
    ends = end_points(fields, config)
    group = components(Counter(ends.values()), config)
    piece = {q: group[end] for q, end in ends.items()}
    merged = joined(piece, ends, fields, config)
    members: dict[int, list[Voxel]] = {}
    for q in sorted(piece):
        members.setdefault(merged[piece[q]], []).append(q)
    largest = math.inf if config.max_size is None else config.max_size
    labels = np.zeros(fields.shape[1:], np.uint32)
    kept = [voxels for voxels in members.values() if config.min_size <= len(voxels) <= largest]
    for number, voxels in enumerate(kept, start=1):
        for q in voxels:
            labels[q] = number
    return labels
