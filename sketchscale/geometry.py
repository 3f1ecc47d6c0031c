"""Boxes, tiles and write units: integers only, any number of axes.

    ┌───────────── tile.read ─────────────┐      read = write grown by the halo, cut at the array
    │ halo  ┌────── tile.write ──────┐    │      write boxes tile the array: no gap, no overlap
    │       │                        │    │
    │       └────────────────────────┘    │
    └─────────────────────────────────────┘

Everything here is pure and exact; nothing depends on how many workers there are. Boxes are half open, axes are in
array order (z, y, x).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar, overload

from sketchscale.errors import InputError

__all__ = ["Box", "Tile", "TileCover", "TileTasks", "block_shape", "joined_boxes", "tile_cover", "whole"]


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """A half-open integer box: `start[i] <= index < stop[i]` along every axis.

    >>> Box((0, 2), (4, 5)).shape
    (4, 3)
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Length along each axis."""
        return tuple(max(0, b - a) for a, b in zip(self.start, self.stop, strict=True))

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Slices that index an array."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def grow(self, halo: int) -> Box:
        """Return the box larger by `halo` on every side; it may leave the array, see `clip`."""
        return Box(tuple(a - halo for a in self.start), tuple(b + halo for b in self.stop))

    def clip(self, shape: Sequence[int]) -> Box:
        """Return the part inside an array of this shape."""
        return self.intersect(whole(shape))

    def intersect(self, other: Box) -> Box:
        """Return the common part; empty (size 0) when there is none."""
        start = tuple(max(a, b) for a, b in zip(self.start, other.start, strict=True))
        stop = tuple(min(a, b) for a, b in zip(self.stop, other.stop, strict=True))
        return Box(start, tuple(max(a, b) for a, b in zip(start, stop, strict=True)))

    def contains(self, other: Box) -> bool:
        """Return whether `other` lies wholly inside."""
        return self.intersect(other) == other

    def relative_to(self, origin: Sequence[int]) -> Box:
        """Return the same box with `origin` as zero, for indexing an array that was read from `origin` on."""
        return Box(
            tuple(a - o for a, o in zip(self.start, origin, strict=True)),
            tuple(b - o for b, o in zip(self.stop, origin, strict=True)),
        )

    def __str__(self) -> str:
        return "[" + ", ".join(f"{a}:{b}" for a, b in zip(self.start, self.stop, strict=True)) + "]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """Boxes of one task: `read` contains `write`; `index` is the tile's position in the grid of write boxes."""

    index: tuple[int, ...]
    write: Box
    read: Box

    @property
    def key(self) -> str:
        """A name that sorts in raster order, as ledgers and logs need it."""
        return ".".join(f"{i:06d}" for i in self.index)


def whole(shape: Sequence[int]) -> Box:
    """Return the box of a whole array."""
    return Box((0,) * len(shape), tuple(int(n) for n in shape))


@dataclass(frozen=True, slots=True)
class TileCover(Sequence[Tile]):
    """The tiles of `tile_cover`, made when they are used, so that a million of them take no memory."""

    shape: tuple[int, ...]
    block: tuple[int, ...]
    halo: int

    @property
    def counts(self) -> tuple[int, ...]:
        """Tiles along each axis."""
        return tuple(-(-n // b) for n, b in zip(self.shape, self.block, strict=True))

    def __len__(self) -> int:
        return math.prod(self.counts)

    @overload
    def __getitem__(self, position: int) -> Tile: ...

    @overload
    def __getitem__(self, position: slice) -> tuple[Tile, ...]: ...

    def __getitem__(self, position: int | slice) -> Tile | tuple[Tile, ...]:
        if isinstance(position, slice):
            return tuple(self[i] for i in range(*position.indices(len(self))))
        rest = range(len(self))[position]  # negative positions, and the error of every sequence
        index = []
        for count in reversed(self.counts):
            rest, at = divmod(rest, count)
            index.append(at)
        return self._tile(tuple(reversed(index)))

    def __iter__(self) -> Iterator[Tile]:
        return map(self._tile, itertools.product(*(range(n) for n in self.counts)))

    def _tile(self, index: tuple[int, ...]) -> Tile:
        start = tuple(i * b for i, b in zip(index, self.block, strict=True))
        write = Box(start, tuple(min(a + b, n) for a, b, n in zip(start, self.block, self.shape, strict=True)))
        return Tile(index=index, write=write, read=write.grow(self.halo).clip(self.shape) if self.halo else write)


TaskT = TypeVar("TaskT")


@dataclass(frozen=True, slots=True)
class TileTasks(Sequence[TaskT]):
    """A task for each tile, made when it is used.

    >>> TileTasks(tile_cover((4,), (2,)), lambda tile: tile.key)[1]
    '000001'
    """

    tiles: Sequence[Tile]
    make: Callable[[Tile], TaskT]

    def __len__(self) -> int:
        return len(self.tiles)

    @overload
    def __getitem__(self, position: int) -> TaskT: ...

    @overload
    def __getitem__(self, position: slice) -> tuple[TaskT, ...]: ...

    def __getitem__(self, position: int | slice) -> TaskT | tuple[TaskT, ...]:
        if isinstance(position, slice):
            return tuple(map(self.make, self.tiles[position]))
        return self.make(self.tiles[position])

    def __iter__(self) -> Iterator[TaskT]:
        return map(self.make, self.tiles)


def tile_cover(shape: Sequence[int], block: Sequence[int], *, halo: int = 0) -> TileCover:
    """Return tiles whose write boxes cover an array exactly once, in raster order, anchored at zero.

    Args:
        shape: of the array; an axis of length 0 gives no tiles.
        block: of a write box; the last one along an axis is cut at the array.
        halo: pixels read beyond the write box on every side, cut at the array.

    >>> [t.write.shape for t in tile_cover((5, 4), (3, 4))]
    [(3, 4), (2, 4)]
    """
    if len(shape) != len(block) or min(block, default=1) < 1 or halo < 0:
        raise InputError(f"cannot tile an array of shape {tuple(shape)} by blocks of {tuple(block)} with halo {halo}")
    return TileCover(tuple(int(n) for n in shape), tuple(int(b) for b in block), halo)


def block_shape(shape: Sequence[int], write_unit: Sequence[int], target: int, *, least: int = 2) -> tuple[int, ...]:
    """Return the largest whole number of write units along each axis within `target` pixels, at least two units.

    A block of exactly one chunk decodes up to nine chunks for its halo; two or more along each axis keep that cheap.
    It never exceeds what covers the array. A shard can be read in parts, so `least` may be 1 where it is the unit.

    >>> block_shape((8000, 8000), (512, 512), 2000)
    (1536, 1536)
    >>> block_shape((100, 8000), (512, 512), 2000)
    (512, 1536)
    """
    blocks = []
    for n, unit in zip(shape, write_unit, strict=True):
        wanted = max(least, target // unit)
        needed = max(1, -(-n // unit))
        blocks.append(unit * min(wanted, needed))
    return tuple(blocks)


def joined_boxes(boxes: Iterable[Box]) -> list[Box]:
    """Return boxes that hold all these and do not overlap: those that overlap become the box around them.

    >>> joined_boxes([Box((0,), (4,)), Box((8,), (9,)), Box((3,), (6,))])
    [Box(start=(8,), stop=(9,)), Box(start=(0,), stop=(6,))]
    """
    apart: list[Box] = []
    for box in boxes:
        while meeting := [other for other in apart if other.intersect(box).size]:
            apart = [other for other in apart if other not in meeting]
            corners = [box, *meeting]
            box = Box(
                tuple(map(min, *(b.start for b in corners))),
                tuple(map(max, *(b.stop for b in corners))),
            )
        apart.append(box)
    return apart
