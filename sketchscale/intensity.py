"""Exact percentiles of a whole image, streamed, and the scaling that uses them.

Networks want intensities between about 0 and 1. Percentiles of a block or a tile would make the result depend on how
the image was cut, so they are taken over the whole plane, exactly, without holding it:

    1. Every pixel becomes an unsigned key that sorts like its value (floats: sign-aware bits).
    2. A pass counts the leading 16 bits of the keys, block by block. Counts are added, so order and cut don't matter.
       For 8- and 16-bit images that is the whole histogram.
    3. Longer types take one pass more per 16 bits: only pixels whose leading bits are those of a wanted rank count.
    4. The values of the wanted ranks are read off, and the percentile is interpolated between two neighbouring ranks:
       numpy's method "linear".

Guarantee: `channel_ranges` equals `numpy.percentile` of the whole plane for any blocks, to the last bit of float64.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.engine.base import Json, Plan
from sketchscale.errors import InputError
from sketchscale.geometry import Box, Tile, TileTasks, tile_cover, whole
from sketchscale.io.ome_zarr.arrays import checksum
from sketchscale.io.ome_zarr.planes import PixelsRef, read_plane

__all__ = [
    "HistogramConfig",
    "Levels",
    "array_levels",
    "array_ranges",
    "channel_levels",
    "channel_ranges",
    "combine_histograms",
    "normalize",
    "partial_histogram",
    "plan_histogram",
]

Ranges = tuple[tuple[float, float], ...]
_DIGIT = 16
_BINS = 1 << _DIGIT
_MIDDLE = 50.0

Prefixes = tuple[tuple[int, ...], ...]
"""Per channel, the leading digits of the keys that count; ((0,), ...) at the first pass: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """Levels of one channel over the whole plane: the percentiles that become 0 and 1, low < high, and the median."""

    low: float
    high: float
    median: float

    @property
    def range(self) -> tuple[float, float]:
        """(low, high)."""
        return self.low, self.high

    @property
    def brightness(self) -> float:
        """Position of the median between the two, from 0 to 1.

        >>> Levels(low=10, high=30, median=15).brightness
        0.25
        """
        return min(1.0, max(0.0, (self.median - self.low) / (self.high - self.low)))


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramConfig:
    """The pass, and the channels that it reads."""

    plane: PixelsRef
    channels: tuple[int, ...]
    prefixes: Prefixes
    position: int


def plan_histogram(
    plane: PixelsRef,
    block: Sequence[int],
    channels: Sequence[int] | None = None,
    *,
    prefixes: Prefixes | None = None,
    position: int = 0,
) -> Plan[Tile]:
    """Return the plan of a pass over the digit at `position` (0 is the leading one); see `channel_ranges`.

    Args:
        block: (y, x) of a task, px; (z, y, x) of a volume.
        channels: positions; all when None.
        prefixes: per channel, the leading digits that count; all when None.
    """
    chosen = tuple(range(len(plane.channels))) if channels is None else tuple(channels)
    tiles = tile_cover(plane.shape, tuple(block))
    pixels = tiles[0].write.size if tiles else 0  # the first one is never cut
    return Plan(
        stage="histogram" if position == 0 else f"histogram-{position}",
        fn=_count_block,
        tasks=tiles,
        config=HistogramConfig(
            plane=plane, channels=chosen, prefixes=prefixes or ((0,),) * len(chosen), position=position
        ),
        task_bytes=pixels * len(chosen) * np.dtype(plane.dtype).itemsize + pixels * 24 + 4 * 8 * _BINS,
    )


def _count_block(tile: Tile, config: HistogramConfig) -> Json:
    values = read_plane(config.plane, tile.write, config.channels)
    # with the checksum in the ledger, `verify` can distinguish a copied input from a changed one
    return {**partial_histogram(values, config.prefixes, config.position), "checksum": checksum(values)}


def channel_ranges(
    run: Callable[[Plan[Tile]], Sequence[Json]],
    plane: PixelsRef,
    block: Sequence[int],
    channels: Sequence[int] | None = None,
    *,
    low: float,
    high: float,
) -> Ranges:
    """Return the percentiles `low` and `high` of every channel over the whole plane.

    Args:
        run: runs a plan and returns its results in task order, such as `lambda plan: run_plan(plan, engine)`.
        block: (y, x) of a task, px; no effect on the result.

    Returns:
        (low, high) per channel, low < high. Where the percentiles coincide (few bright pixels on a flat ground), the
        smallest and the largest value of the channel.

    Raises:
        InputError: NaN or Inf pixels (how many, and the first block), a constant channel, an empty plane.
    """
    return tuple(levels.range for levels in channel_levels(run, plane, block, channels, low=low, high=high))


def channel_levels(
    run: Callable[[Plan[Tile]], Sequence[Json]],
    plane: PixelsRef,
    block: Sequence[int],
    channels: Sequence[int] | None = None,
    *,
    low: float,
    high: float,
) -> tuple[Levels, ...]:
    """Return `channel_ranges` with the median of every channel, from the same passes."""
    chosen = tuple(range(len(plane.channels))) if channels is None else tuple(channels)
    boxes = TileTasks(tile_cover(plane.shape, tuple(block)), lambda tile: tile.write)

    def count(prefixes: Prefixes, position: int) -> dict[str, Any]:
        plan = plan_histogram(plane, block, chosen, prefixes=prefixes, position=position)
        parts = list(run(plan))
        _refuse_bad(parts, boxes, str(plane.array))
        return combine_histograms(parts)

    names = [f"channel {plane.channels[c]!r} of {plane.array}" for c in chosen]
    return _levels(count, np.dtype(plane.dtype), names, low, high)


def array_ranges(values: npt.NDArray[Any], *, low: float, high: float, name: str = "the image") -> Ranges:
    """Return `channel_ranges` of an array in memory, (c, y, x) or (c, z, y, x).

    >>> array_ranges(np.arange(101, dtype=np.uint8).reshape(1, 1, 101), low=1, high=99)
    ((1.0, 99.0),)
    """
    return tuple(levels.range for levels in array_levels(values, low=low, high=high, name=name))


def array_levels(values: npt.NDArray[Any], *, low: float, high: float, name: str = "the image") -> tuple[Levels, ...]:
    """Return `channel_levels` of an array in memory, (c, y, x) or (c, z, y, x)."""

    def count(prefixes: Prefixes, position: int) -> dict[str, Any]:
        part = partial_histogram(values, prefixes, position)
        _refuse_bad([part], [whole(values.shape[1:])], name)
        return combine_histograms([part])

    return _levels(count, values.dtype, [f"channel {c} of {name}" for c in range(values.shape[0])], low, high)


def partial_histogram(values: npt.NDArray[Any], prefixes: Prefixes, position: int) -> dict[str, Any]:
    """Count for one block how many keys that start with a prefix continue with each digit.

    Args:
        values: (c, y, x) or (c, z, y, x), numbers of up to 64 bits.
        prefixes: per channel; the leading `position` digits as one integer each.

    Returns:
        JSON: `bad`, the number of NaN and Inf pixels (which are not counted), and `counts`, per channel and prefix.
    """
    bad = int((~np.isfinite(values)).sum()) if values.dtype.kind == "f" else 0
    counts = []
    for channel, wanted in zip(values, prefixes, strict=True):
        keys = _sortable(channel[np.isfinite(channel)] if bad else channel.ravel())
        shift = np.uint64(keys.dtype.itemsize * 8 - _DIGIT * (position + 1))
        leading = keys.astype(np.uint64) >> shift
        above, digit = leading >> np.uint64(_DIGIT), (leading & np.uint64(_BINS - 1)).astype(np.int64)
        every = position == 0
        counts.append({str(p): _packed(digit if every else digit[above == np.uint64(p)]) for p in wanted})
    return {"bad": bad, "counts": counts}


def _sortable(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return unsigned keys of at least 16 bits that sort as the values do; see `_unsorted` for the inverse."""
    kind, size = values.dtype.kind, max(2, values.dtype.itemsize)
    if kind == "f":
        bits = (values + values.dtype.type(0)).view(f"u{size}")  # -0.0 becomes 0.0
        sign = bits.dtype.type(1 << (8 * size - 1))
        return np.asarray(np.where(bits & sign, ~bits, bits | sign))
    if kind == "i":
        wide = values.astype(f"i{size}").view(f"u{size}")
        return np.asarray(wide ^ wide.dtype.type(1 << (8 * size - 1)))
    if kind in "ub":
        return values.astype(f"u{size}")
    raise InputError.of(found=f"pixels of type {values.dtype}", expected="integers or floats", fix="convert the image")


def _unsorted(key: int, dtype: np.dtype[Any]) -> Any:
    """Return the value of a key."""
    size = max(2, dtype.itemsize)
    top = 1 << (8 * size - 1)
    if dtype.kind == "f":
        bits = key ^ top if key & top else ~key & (2 * top - 1)
        return np.array([bits], f"u{size}").view(f"f{size}")[0]
    return key - top if dtype.kind == "i" else key


def _packed(digits: npt.NDArray[np.int64]) -> str:
    """Return the counts of digits as text: pairs (digit, count), compressed."""
    counts = np.bincount(digits, minlength=1)
    present = np.flatnonzero(counts)
    pairs = np.stack([present, counts[present]]).astype("<i8")
    return base64.b64encode(zlib.compress(pairs.tobytes(), 1)).decode()


def _unpacked(text: str) -> npt.NDArray[np.int64]:
    pairs = np.frombuffer(zlib.decompress(base64.b64decode(text)), "<i8").reshape(2, -1)
    counts = np.zeros(_BINS, np.int64)
    counts[pairs[0]] = pairs[1]
    return counts


def combine_histograms(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sum of histograms of one pass: `counts`, per channel a mapping of prefix to (65536,) int64."""
    total: list[dict[int, npt.NDArray[np.int64]]] = []
    for part in parts:
        total = total or [{} for _ in part["counts"]]
        for channel, counted in zip(total, part["counts"], strict=True):
            for prefix, text in counted.items():
                counts = _unpacked(text)
                channel[int(prefix)] = channel[int(prefix)] + counts if int(prefix) in channel else counts
    return {"bad": sum(part["bad"] for part in parts), "counts": total}


def _refuse_bad(parts: Sequence[Mapping[str, Any]], boxes: Sequence[Box], name: str) -> None:
    bad = [(part["bad"], box) for part, box in zip(parts, boxes, strict=True) if part["bad"]]
    if bad:
        raise InputError.of(
            found=f"{name} has {sum(n for n, _ in bad)} NaN or Inf pixels, the first in box {bad[0][1]}",
            expected="finite pixels",
            fix="replace them, with 0 for example, and convert the image again",
        )


def _levels(
    count: Callable[[Prefixes, int], dict[str, Any]],
    dtype: np.dtype[Any],
    names: Sequence[str],
    low: float,
    high: float,
) -> tuple[Levels, ...]:
    """Pass over the digits until the wanted ranks are single values; return the percentiles."""
    passes = max(2, dtype.itemsize) * 8 // _DIGIT
    histograms = count(((0,),) * len(names), 0)["counts"]
    if not histograms or not int(histograms[0][0].sum()):
        raise InputError.of(found=f"{names[0] if names else 'no channel'}: no pixels", expected="some", fix="check it")
    totals = [int(channel[0].sum()) for channel in histograms]
    wanted = [_wanted_ranks(n, (low, high, _MIDDLE)) for n in totals]
    found = [{rank: (0, rank) for rank in ranks} for ranks in wanted]
    for position in range(passes):
        if position:
            prefixes = tuple(tuple(sorted({prefix for prefix, _ in ranks.values()})) for ranks in found)
            histograms = count(prefixes, position)["counts"]
        for channel, ranks in zip(histograms, found, strict=True):
            for rank, (prefix, rest) in ranks.items():
                ranks[rank] = _descend(channel[prefix], prefix, rest)
    values = [{rank: _unsorted(key, dtype) for rank, (key, _) in ranks.items()} for ranks in found]
    return tuple(_levels_of(v, n, low, high, name) for v, n, name in zip(values, totals, names, strict=True))


def _wanted_ranks(n: int, percentiles: Sequence[float]) -> set[int]:
    places = [(n - 1) * q / 100 for q in percentiles]
    return {0, n - 1, *(int(p) for p in places), *(min(n - 1, int(p) + 1) for p in places)}


def _descend(counts: npt.NDArray[np.int64], prefix: int, rank: int) -> tuple[int, int]:
    """Return the longer prefix of the digit in which a rank falls, and the rank among the keys that share it."""
    ends = np.cumsum(counts)
    digit = int(np.searchsorted(ends, rank, side="right"))
    return prefix * _BINS + digit, rank - (int(ends[digit - 1]) if digit else 0)


def _levels_of(values: Mapping[int, Any], n: int, low: float, high: float, name: str) -> Levels:
    if values[0] == values[n - 1]:
        raise InputError.of(
            found=f"{name} is constant ({values[0]})",
            expected="an image",
            fix="leave it out, or choose another channel",
        )
    bounds = _percentile(values, n, low), _percentile(values, n, high)
    bounds = bounds if bounds[0] < bounds[1] else (float(values[0]), float(values[n - 1]))
    return Levels(low=bounds[0], high=bounds[1], median=_percentile(values, n, _MIDDLE))


def _percentile(values: Mapping[int, Any], n: int, q: float) -> float:
    """Interpolate as numpy's "linear", with its two forms of the straight line, which differ in the last bit."""
    place = (n - 1) * (q / 100)
    below = int(place)
    share = place - below
    a, b = float(values[below]), float(values[min(n - 1, below + 1)])
    return b - (b - a) * (1 - share) if share >= 0.5 else a + (b - a) * share


def normalize(values: npt.NDArray[Any], ranges: Sequence[tuple[float, float]]) -> npt.NDArray[np.float32]:
    """Return (v - low) / (high - low) per channel, not clipped.

    Args:
        values: (c, ...). ranges: (low, high) per channel.

    Returns:
        Of the shape of `values`, float32; a pixel's result depends on that pixel alone. Types of more than 32
        significant bits are shifted in float64 first, so that a large offset does not eat the signal.

    Raises:
        InputError: another number of ranges than channels.
    """
    if len(ranges) != values.shape[0]:
        raise InputError.of(
            found=f"{values.shape[0]} channels and {len(ranges)} ranges", expected="as many", fix="choose channels"
        )
    out = np.empty(values.shape, np.float32)
    wide = np.float32 if values.dtype.itemsize <= 2 or values.dtype == np.float32 else np.float64
    for channel, (low, high), scaled in zip(values, ranges, out, strict=True):
        scaled[...] = channel.astype(wide) - wide(low)
        scaled /= np.float32(high - low)
    return out
