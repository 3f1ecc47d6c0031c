"""Slopes of the maps, and the markers: everything that depends on the surroundings of a pixel only.

    v, h ─▶ slope of v along y, of h along x ─▶ energy ─▶ foreground below `edge` ─▶ holes filled ─▶ opened ─▶ markers
    m ────▶ foreground

Inside an object the maps rise from -1 to 1; where two objects meet they fall from 1 to -1 within a pixel. The energy of
a pixel is the steeper fall of the two, by a Sobel filter (binomial weights across, their differences along), in units
of the filter's response to such a whole step along a straight edge: 1 between two objects, 0.5 between an object and
background (where the maps are 0), below 0 inside. HoVer-Net scales by the smallest and the largest slope of the image
instead, so that one odd pixel, or the cut into tiles, changes all objects.

    read      ┌──────────────────────┐  = seen grown by window // 2, in the image
    seen      │ ┌──────────────────┐ │  = kept grown by holes + 2 x opening, in the image: a hole of at most `holes` px
    kept      │ │    ┌────────┐    │ │    that comes within 2 x opening of kept lies in it
              └─┴────┴────────┴────┴─┘  = the core, and the next row and column after it, in the image

All of it is integers, so a pixel has the same bits in every box. Beyond the image slopes use its edge pixels repeated;
a hole at the image's border is not filled; the disc that opens may reach out of the image.

Source: HoVer-Net (Graham et al. 2019), except for the scale and the limit on holes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from math import comb

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError
from sketchscale.geometry import Box
from sketchscale.integration.fixed_point import Float16, Int32, Int64, Mask, Uint16, compiled, half_values
from sketchscale.integration.refine import holes_of
from sketchscale.integration.watershed.config import WatershedConfig

__all__ = ["STEP", "Relief", "Surroundings", "relief_of", "surroundings_of"]

STEP = 1 << 14
"""Energy of a whole step from 1 to -1."""

_BITS = 10
"""Fractional bits of the maps and of either filter: the response to a whole step is 2^30."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The nested boxes of one block, in image coordinates; see the drawing above."""

    shape: tuple[int, ...]
    core: Box
    kept: Box
    seen: Box
    read: Box


@dataclass(frozen=True, slots=True, kw_only=True)
class Relief:
    """The relief that a block floods, over the `kept` box.

    Attributes:
        energy: int16, -STEP to STEP - 1; see the module.
        foreground, marker: a marker may reach over holes of the foreground.
    """

    energy: npt.NDArray[np.int16]
    foreground: Mask
    marker: Mask


def surroundings_of(core: Box, shape: tuple[int, ...], config: WatershedConfig) -> Surroundings:
    """Return the boxes needed to flood a core of an image of this shape (y, x)."""
    kept = Box(core.start, (core.stop[0] + 1, core.stop[1] + 1)).clip(shape)
    seen = kept.grow(config.margin).clip(shape)
    return Surroundings(shape=shape, core=core, kept=kept, seen=seen, read=seen.grow(config.radius).clip(shape))


def relief_of(fields: Float16, around: Surroundings, config: WatershedConfig) -> Relief:
    """Return energy, foreground and markers of a block.

    Args:
        fields: (3, y, x) of `around.read`: v, h (NaN only outside the foreground), m.

    Raises:
        InputError: v or h is not finite in the foreground, with the number of pixels.

    >>> fields = np.zeros((3, 9, 20), np.float16)
    >>> fields[2] = 1
    >>> fields[1] = np.tile(np.linspace(-1, 1, 10), 2)
    >>> around = surroundings_of(Box((0, 0), (9, 20)), (9, 20), rule := WatershedConfig(window=3))
    >>> relief_of(fields, around, rule).energy[4, 8:12] / STEP
    array([0.        , 0.88867188, 0.88867188, 0.        ])
    """
    bits = np.ascontiguousarray(fields).view(np.uint16)
    with np.errstate(invalid="ignore"):
        foreground = np.asarray(half_values().astype(np.float64) >= config.threshold)[bits[2]]
    finite = np.isfinite(half_values())
    broken = np.count_nonzero(foreground & ~(finite[bits[0]] & finite[bits[1]]))
    if broken:
        raise InputError.of(
            found=f"the h and v maps near block {around.core} are not finite at {broken} foreground pixels",
            expected="finite numbers",
            fix="run the prediction again; check the image and the model",
        )
    energy = _energy(bits, around, config.window)
    foreground = foreground[around.seen.relative_to(around.read.start).slices]
    flat = foreground & (energy < round(config.edge * STEP))
    marker = _opened(_filled(flat, config.holes), config.opening)
    kept = around.kept.relative_to(around.seen.start).slices
    return Relief(energy=energy[kept], foreground=foreground[kept], marker=marker[kept])


def _refuse_broken(bits: Uint16, foreground: Mask, around: Surroundings) -> None:
    finite = np.isfinite(half_values())
    broken = np.count_nonzero(foreground & ~(finite[bits[0]] & finite[bits[1]]))
    if broken:
        raise InputError.of(
            found=f"the h and v maps near block {around.core} are not finite at {broken} foreground pixels",
            expected="finite numbers",
            fix="run the prediction again; check the image and the model",
        )


@functools.lru_cache(maxsize=8)
def _at_least(threshold: float) -> Mask:
    """For each bit pattern whether its value is at least the threshold (NaN is not)."""
    with np.errstate(invalid="ignore"):
        return np.asarray(half_values().astype(np.float64) >= threshold)


@functools.cache
def _fixed() -> Int32:
    """Return for each bit pattern its value between -1 and 1 with 10 fractional bits; 0 for NaN."""
    values = np.clip(np.nan_to_num(half_values(), nan=0.0, posinf=1.0, neginf=-1.0), -1, 1)
    return np.rint(values.astype(np.float64) * (1 << _BITS)).astype(np.int32)


def _rounded(values: list[int], total: int) -> Int32:
    """Return integers in proportion to `values` with this sum; the largest takes the error of rounding."""
    weights = np.array([(2 * total * value + sum(values)) // (2 * sum(values)) for value in values], np.int32)
    weights[int(np.argmax(weights))] += total - weights.sum()
    return weights


def _energy(bits: Uint16, around: Surroundings, window: int) -> npt.NDArray[np.int16]:
    """Return the energy of the seen box.

    The weights across are binomial with sum 2^10; those along are their differences, antisymmetric, half with sum 2^9.
    """
    reach = window // 2
    across = _rounded([comb(window - 1, k) for k in range(window)], 1 << _BITS)
    inner = [0, 0, *(comb(window - 3, k) for k in range(window - 2)), 0, 0]
    half = _rounded([inner[k] - inner[k + 2] for k in range(reach + 1, window)], 1 << (_BITS - 1))
    along = np.concatenate([-half[::-1], [0], half]).astype(np.int32)
    wanted = [(a - reach, b + reach) for a, b in zip(around.seen.start, around.seen.stop, strict=True)]
    rows, columns = (
        np.clip(np.arange(a, b), start, stop - 1) - start
        for (a, b), start, stop in zip(wanted, around.read.start, around.read.stop, strict=True)
    )
    energy = np.full(around.seen.shape, -STEP, np.int16)
    for plane, row_weights, column_weights in ((bits[0], along, across), (bits[1], across, along)):
        _steepest(plane, _fixed(), rows, columns, row_weights, column_weights, energy)
    return energy


@compiled
def _steepest(
    bits: Uint16,
    value: Int32,
    rows: Int64,
    columns: Int64,
    row_weights: Int32,
    column_weights: Int32,
    energy: npt.NDArray[np.int16],
) -> None:
    """energy <- max(energy, fall), for one map; holds only a ring of filtered rows."""
    taps = row_weights.size
    width = energy.shape[1]
    line = np.empty(columns.size, np.int32)
    ring = np.zeros((taps, width), np.int32)
    total = np.empty(width, np.int32)
    for i in range(rows.size):
        for x in range(columns.size):
            line[x] = value[bits[rows[i], columns[x]]]
        filtered = ring[i % taps]
        filtered[:] = 0
        for k in range(taps):
            _add(filtered, line[k : k + width], column_weights[k])
        if i >= taps - 1:
            total[:] = 0
            for k in range(taps):
                _add(total, ring[(i + 1 + k) % taps], row_weights[k])
            _settle(total, energy[i - taps + 1])


@compiled
def _add(total: Int32, values: Int32, weight: np.int32) -> None:
    """total <- total + weight * values."""
    if weight != 0:
        for x in range(total.size):
            total[x] = np.int32(total[x] + np.int32(values[x] * weight))


@compiled
def _settle(rise: Int32, energy: npt.NDArray[np.int16]) -> None:
    """energy <- max(energy, -rise), scaled to STEP."""
    for x in range(energy.size):
        fall = min(-rise[x] >> 16, 16383)
        energy[x] = max(energy[x], fall)


def _filled(mask: Mask, largest: int) -> Mask:
    """Return the mask with its 4-connected holes of at most `largest` px filled, but for those at the box's sides."""
    return mask | holes_of(mask.view(np.uint8), 1, largest) if largest else mask


def _opened(mask: Mask, radius: int) -> Mask:
    """Return the union of the discs of this radius that lie in the mask, or beyond the box."""
    if radius == 0:
        return mask
    inner = _combined(mask, radius, np.logical_and, True)
    return _combined(inner, radius, np.logical_or, False)


def _combined(mask: Mask, radius: int, combine: np.ufunc, beyond: bool) -> Mask:
    """Combine the values in a disc around each pixel."""
    padded = np.pad(mask, radius, constant_values=beyond)
    result = mask.copy()
    for dy in range(-radius, radius + 1):
        half = int(radius * (1 - (dy / radius) ** 2) ** 0.5 + 0.5)
        for dx in range(-half, half + 1):
            shifted = padded[radius + dy :, radius + dx :][: mask.shape[0], : mask.shape[1]]
            combine(result, shifted, out=result)
    return result
