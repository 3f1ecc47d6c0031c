from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.errors import InputError
from sketchscale.geometry import Box, tile_cover, whole
from sketchscale.prediction.blend import TileGrid, axis_weights, blend_box

grids = st.builds(
    lambda y, x, tile, share: TileGrid(shape=(y, x), tile=tile, overlap=int(tile * share)),
    st.integers(1, 150),
    st.integers(1, 150),
    st.sampled_from([16, 24, 40]),
    st.floats(0, 0.5),
)


@settings(max_examples=50, deadline=None)
@given(grid=grids)
def test_every_pixel_is_covered_and_the_weights_sum_to_one(grid: TileGrid) -> None:
    ones = np.ones((1, grid.tile, grid.tile), np.float32)
    blended = blend_box(grid, whole(grid.shape), lambda position: ones)
    np.testing.assert_allclose(blended, 1, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(grid=grids, block=st.tuples(st.integers(1, 70), st.integers(1, 70)), seed=st.integers(0, 99))
def test_any_block_gives_the_bits_of_the_whole(grid: TileGrid, block: tuple[int, int], seed: int) -> None:
    tiles = np.random.default_rng(seed).normal(size=(len(grid), 2, grid.tile, grid.tile)).astype(np.float16)
    expected = blend_box(grid, whole(grid.shape), tiles.__getitem__)
    for part in tile_cover(grid.shape, block):
        np.testing.assert_array_equal(blend_box(grid, part.write, tiles.__getitem__), expected[:, *part.write.slices])


@settings(max_examples=50, deadline=None)
@given(grid=grids, y=st.integers(0, 149), x=st.integers(0, 149))
def test_covering_lists_exactly_the_tiles_that_hold_a_pixel(grid: TileGrid, y: int, x: int) -> None:
    pixel = Box((y, x), (y + 1, x + 1)).clip(grid.shape)
    if pixel.size:
        expected = [i for i in range(len(grid)) if grid.box(i).intersect(pixel).size]
        assert list(grid.covering(pixel)) == expected
        assert expected


def test_ramps_of_neighbours_are_complementary() -> None:
    left, right = axis_weights(0, 2, 32, 8), axis_weights(1, 2, 32, 8)
    np.testing.assert_array_equal(left[-8:] + right[:8], np.ones(8, np.float32))


def test_an_overlap_of_more_than_half_a_tile_is_refused() -> None:
    with pytest.raises(InputError, match="at most half"):
        TileGrid(shape=(10, 10), tile=32, overlap=17)
