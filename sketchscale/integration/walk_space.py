"""The inner kernel of volumes: `suppressed` of walk_plane.py with one more axis.

It has the same integers and the same reach on each axis, so the guarantees of walk_plane.py about blocks, processors
and mirrored images hold here. Steps are in voxels. Fields predicted on another grid have to be converted first
(inference/views.py divides flow along z by spacing z / spacing y, so that a trajectory keeps its shape in space). The
distance may be in any unit: only the threshold and the `prominence` use it.
"""

from __future__ import annotations

import numpy as np

from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.fixed_point import (
    FLOW_BITS,
    SUPPRESSED_BITS,
    Float32,
    Int32,
    Int64,
    Uint8,
    Uint16,
    above,
    compiled,
    half_values,
)

__all__ = ["walk_space"]

_LANES = 512
_INSIDE = 1 << 48
"""Flag of a foreground voxel's word; below it 16 bits each of flow z, y, x."""

_i4 = np.int32


def walk_space(
    bits: Uint16,
    offset: Int64,
    padded: tuple[int, ...],
    boxes: Int64,
    config: IntegrationConfig,
    ends: Int32,
    counts: Uint16,
) -> tuple[int, int, float]:
    """As `walk_plane`, for (4, z, y, x): flow z, y, x, distance; rows of `boxes` are z0, y0, x0, z1, y1, x1."""
    packed = np.zeros(padded, np.int64)
    broken = _pack(bits, half_values(), above(config.threshold), offset, packed)
    if broken:
        return broken, 0, 0.0
    escaped, farthest = _follow(packed, boxes, config.gains, config.reach, ends, counts)
    return 0, escaped, farthest / 2**SUPPRESSED_BITS


@compiled
def _unit(z: np.float32, y: np.float32, x: np.float32) -> np.float32:
    """Return the length of a vector, at least 1e-6; infinite when a component is not finite.

    The smaller squares are added first, so that axes may be exchanged.
    """
    if not abs(z) + abs(y) + abs(x) < np.float32(np.inf):
        return np.float32(np.inf)
    z, y, x = z * z, y * y, x * x
    largest, smallest = max(max(z, y), x), min(min(z, y), x)
    middle = max(min(z, y), min(max(z, y), x))
    return max(np.sqrt((smallest + middle) + largest), np.float32(1e-6))


@compiled
def _pack(bits: Uint16, value: Float32, above: Uint8, offset: Int64, packed: Int64) -> int:
    """Fill `packed` from bits that begin at `offset`, edges repeated; return the number of broken voxels."""
    broken = 0
    depth, rows, columns = bits.shape[1], bits.shape[2], bits.shape[3]
    scale = np.float32(1 << FLOW_BITS)
    for z in range(packed.shape[0]):
        sz = min(max(z - offset[0], 0), depth - 1)
        for y in range(packed.shape[1]):
            sy = min(max(y - offset[1], 0), rows - 1)
            for x in range(packed.shape[2]):
                sx = min(max(x - offset[2], 0), columns - 1)
                if above[bits[3, sz, sy, sx]]:
                    vz, vy, vx = value[bits[0, sz, sy, sx]], value[bits[1, sz, sy, sx]], value[bits[2, sz, sy, sx]]
                    length = _unit(vz, vy, vx)
                    if length == np.float32(np.inf):
                        broken += 1
                        continue
                    a = int(np.rint(vz / length * scale)) & 0xFFFF
                    b = int(np.rint(vy / length * scale)) & 0xFFFF
                    c = int(np.rint(vx / length * scale)) & 0xFFFF
                    packed[z, y, x] = _INSIDE | (a << 32) | (b << 16) | c
    return broken


@compiled
def _follow(packed: Int64, boxes: Int64, gains: Int32, reach: int, ends: Int32, counts: Uint16) -> tuple[int, int]:
    """Collect the foreground voxels of the walked box in batches, advance them, and record their end points."""
    height, width = packed.shape[1], packed.shape[2]
    words = packed.reshape(-1)
    place = np.empty((3, _LANES), np.int32)
    state = np.empty((8, _LANES), np.int32)
    word = np.empty(_LANES, np.int64)
    escaped, farthest, n = 0, 0, 0
    for z in range(boxes[0, 0], boxes[0, 3]):
        for y in range(boxes[0, 1], boxes[0, 4]):
            for x in range(boxes[0, 2], boxes[0, 5]):
                if packed[z, y, x]:
                    place[0, n], place[1, n], place[2, n] = z, y, x
                    state[0, n] = (z * height + y) * width + x
                    n += 1
                    if n == _LANES:
                        escaped += _advance(words, height, width, gains, reach, state, word)
                        farthest = max(farthest, _settle(place, state, boxes, ends, counts))
                        n = 0
    if n > 0:
        escaped += _advance(words, height, width, gains, reach, state[:, :n], word[:n])
        farthest = max(farthest, _settle(place[:, :n], state[:, :n], boxes, ends, counts))
    return escaped, farthest


@compiled
def _advance(packed: Int64, height: int, width: int, gains: Int32, reach: int, state: Int32, word: Int64) -> int:
    """Make all steps of one batch. Rows of `state`: start index, u z, y, x, p z, y, x, look-up index.

    The loops are separate for the reason given in walk_plane.py: alone, the arithmetic becomes vector code.
    """
    base, index = state[0], state[7]
    state[1:4] = 0
    for axis in range(3):
        for i in range(base.size):
            state[4 + axis, i] = _i4((packed[base[i]] << (16 * (axis + 1))) >> 48)
    escaped = 0
    for t in range(gains.size):
        escaped += _nearest(base, state[1], state[2], state[3], _i4(height), _i4(width), _i4(reach), index)
        for i in range(index.size):
            word[i] = packed[np.uint32(index[i])]
        for axis in range(3):  # p <- (v + p) / 2 towards zero, u <- u + gain p
            left, p, u = 16 * (axis + 1), state[4 + axis], state[1 + axis]
            for i in range(word.size):
                twice = _i4(_i4((word[i] << left) >> 48) + p[i])
                p[i] = _i4(_i4(twice - _i4(twice >> _i4(31))) >> _i4(1))
                u[i] = _i4(u[i] + _i4(p[i] * gains[t]))
    return escaped


@compiled
def _rounded(u: np.int32) -> np.int32:
    """Round a displacement to the nearest voxel, halves away from zero."""
    half = _i4(1 << (SUPPRESSED_BITS - 1))
    return _i4(_i4(_i4(u + _i4(u >> _i4(31))) + half) >> _i4(SUPPRESSED_BITS))


@compiled
def _nearest(
    base: Int32, uz: Int32, uy: Int32, ux: Int32, height: np.int32, width: np.int32, reach: np.int32, index: Int32
) -> int:
    """Find the voxel nearest to each position, or the start where it is beyond the reach; return how often it is."""
    escaped = _i4(0)
    for i in range(index.size):
        z, y, x = _rounded(uz[i]), _rounded(uy[i]), _rounded(ux[i])
        out = _i4(_i4(z + reach) | _i4(reach - z) | _i4(y + reach) | _i4(reach - y))
        out = _i4(_i4(out | _i4(x + reach) | _i4(reach - x)) >> _i4(31))
        escaped = _i4(escaped - out)
        step = _i4(_i4(_i4(_i4(_i4(z * height) + y) * width) + x) & _i4(~out))
        index[i] = _i4(base[i] + step)
    return int(escaped)


@compiled
def _settle(place: Int32, state: Int32, boxes: Int64, ends: Int32, counts: Uint16) -> int:
    """Count every end voxel, up to 65,535, and record it for the kept box; return the largest displacement."""
    farthest = np.int64(0)
    kept, window, image = boxes[1], boxes[2], boxes[3]
    end = np.empty(3, np.int64)
    for i in range(place.shape[1]):
        held, own = True, True
        for axis in range(3):
            u = state[1 + axis, i]
            farthest = max(farthest, abs(np.int64(u)))
            end[axis] = min(max(np.int64(place[axis, i]) + _rounded(u), image[axis]), image[axis + 3] - 1)
            held = held and window[axis] <= end[axis] < window[axis + 3]
            own = own and kept[axis] <= place[axis, i] < kept[axis + 3]
            end[axis] -= window[axis]
        if held:
            counts[end[0], end[1], end[2]] = min(65535, counts[end[0], end[1], end[2]] + 1)
            if own:
                flat = (end[0] * (window[4] - window[1]) + end[1]) * (window[5] - window[2]) + end[2]
                ends[place[0, i] - kept[0], place[1, i] - kept[1], place[2, i] - kept[2]] = flat
    return int(farthest)
