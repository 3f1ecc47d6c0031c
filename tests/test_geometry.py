from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sketchscale.errors import InputError
from sketchscale.geometry import Box, block_shape, tile_cover, whole

shapes = st.lists(st.integers(1, 40), min_size=1, max_size=3)


@given(shape=shapes, data=st.data(), halo=st.integers(0, 9))
def test_write_boxes_cover_every_pixel_once_and_read_boxes_hold_them(
    shape: list[int], data: st.DataObject, halo: int
) -> None:
    block = [data.draw(st.integers(1, 50)) for _ in shape]
    seen = np.zeros(shape, int)
    tiles = tile_cover(shape, block, halo=halo)
    for tile in tiles:
        seen[tile.write.slices] += 1
        assert tile.read.contains(tile.write)
        assert whole(shape).contains(tile.read)
        assert tile.read == tile.write.grow(halo).clip(shape)
    assert (seen == 1).all()
    assert [t.key for t in tiles] == sorted(t.key for t in tiles)


def test_an_empty_array_has_no_tiles() -> None:
    assert list(tile_cover((0, 5), (2, 2))) == []


def test_a_tile_by_its_position_is_that_of_the_iteration() -> None:
    tiles = tile_cover((7, 5, 9), (3, 5, 2), halo=1)
    assert [tiles[i] for i in range(len(tiles))] == list(tiles)
    assert (tiles[-1], tiles[1:3]) == (list(tiles)[-1], tuple(tiles)[1:3])
    with pytest.raises(IndexError):
        tiles[len(tiles)]


def test_a_million_tiles_take_no_memory() -> None:
    tracemalloc.start()
    tiles = tile_cover((2048 * 1000, 2048 * 1000), (2048, 2048))
    assert (len(tiles), tiles[999_999].write.stop) == (10**6, (2048 * 1000, 2048 * 1000))
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_a_block_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="blocks of"):
        tile_cover((4, 4), (0, 2))


@given(n=st.integers(1, 5000), unit=st.integers(1, 600), target=st.integers(1, 4000))
def test_blocks_are_whole_write_units_and_at_least_two_where_the_array_has_them(n: int, unit: int, target: int) -> None:
    (block,) = block_shape((n,), (unit,), target)
    assert block % unit == 0
    assert block >= min(2 * unit, unit * -(-n // unit))


def test_intersections_that_are_empty_have_size_zero() -> None:
    assert Box((0, 0), (2, 2)).intersect(Box((5, 0), (6, 2))).size == 0
