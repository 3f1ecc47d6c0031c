"""Tile grids over any number of axes: cover, ramps, blending, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.errors import InputError
from sketchscale.geometry import Box, tile_cover, whole
from sketchscale.inference.grid import TileGrid, axis_weights, blend_box, pad_tile, shortened, tile_grid


@st.composite
def grids(draw: st.DrawFn) -> TileGrid:
    """Of one to three axes, square or shortened."""
    shape = draw(st.lists(st.integers(1, 70), min_size=1, max_size=3))
    tile = draw(st.sampled_from([16, 24, 40]))
    grid = tile_grid(shape, tile, int(tile * draw(st.floats(0, 0.5))), 8)
    return shortened(grid, 8) if draw(st.booleans()) else grid


@settings(max_examples=50, deadline=None)
@given(grid=grids(), block=st.integers(3, 50), seed=st.integers(0, 99))
def test_any_block_gives_the_bits_of_the_whole(grid: TileGrid, block: int, seed: int) -> None:
    tiles = np.random.default_rng(seed).normal(size=(len(grid), 2, *grid.tile)).astype(np.float16)

    def read(position: int, part: Box) -> np.ndarray:
        return tiles[position][(slice(None), *part.slices)]

    expected = blend_box(grid, whole(grid.shape), read)
    for part in tile_cover(grid.shape, (block,) * len(grid.shape)):
        np.testing.assert_array_equal(blend_box(grid, part.write, read), expected[(slice(None), *part.write.slices)])


@settings(max_examples=50, deadline=None)
@given(grid=grids())
def test_tiles_cut_from_one_image_blend_to_that_image(grid: TileGrid) -> None:
    image = np.random.default_rng(0).random(tuple(n + 64 for n in grid.shape)).astype(np.float32)

    def read(position: int, part: Box) -> np.ndarray:
        return image[part.relative_to(tuple(-a for a in grid.box(position).start)).slices][None]

    blended = blend_box(grid, whole(grid.shape), read)
    np.testing.assert_allclose(blended[0], image[tuple(map(slice, grid.shape))], rtol=1e-5)


@settings(max_examples=50, deadline=None)
@given(grid=grids(), places=st.tuples(*[st.integers(0, 69)] * 3))
def test_covering_lists_exactly_the_tiles_that_hold_a_pixel(grid: TileGrid, places: tuple[int, ...]) -> None:
    start = tuple(place % n for place, n in zip(places, grid.shape, strict=False))
    pixel = Box(start, tuple(a + 1 for a in start))
    expected = [i for i in range(len(grid)) if grid.box(i).intersect(pixel).size]
    assert list(grid.covering(pixel)) == expected
    assert expected


def test_ramps_of_neighbours_are_complementary() -> None:
    left, right = axis_weights(0, 2, 32, 8), axis_weights(1, 2, 32, 8)
    np.testing.assert_array_equal(left[-8:] + right[:8], np.ones(8, np.float32))


def test_tiles_are_shortened_where_the_image_is_shorter_in_multiples_of_the_stride() -> None:
    grid = shortened(tile_grid((5, 100, 40), 32, 8, 8), 8)
    assert (grid.tile, grid.overlap) == ((16, 32, 32), (8, 8, 8))


def test_a_tile_beyond_the_image_continues_as_its_mirror_image() -> None:
    assert pad_tile(np.arange(3)[None], (7,)).tolist() == [[0, 1, 2, 2, 1, 0, 0]]


def test_tiles_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="at most half"):
        tile_grid((10, 10), 32, 17, 8)
    with pytest.raises(InputError, match="multiple of 8"):
        tile_grid((5, 5), 30, 8, 8)
