"""The scaled plane: as torch resizes, as loops have it, and the same for every tile and block."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from sketchscale.errors import InputError
from sketchscale.geometry import Box, tile_cover, whole
from sketchscale.prediction.rescale import Zoom, fields_of_image, pixels_at_scale

SCALES = (0.5, 0.75, 1.3, 2.0)
zooms = st.builds(
    lambda y, x, scale: Zoom(shape=(y, x), scale=scale),
    st.integers(1, 60),
    st.integers(1, 60),
    st.one_of(st.sampled_from(SCALES), st.floats(0.1, 4)),
)
blocks = st.tuples(st.integers(7, 40), st.integers(7, 40))


def of_array(values: npt.NDArray[np.generic]):
    return lambda box: values[(slice(None), *box.slices)]


def by_loops(values: npt.NDArray[np.floating], shape: tuple[int, int], step: float, half_width: float):
    """Every output pixel a weighted mean over all input pixels."""
    matrices = []
    for n, m in zip(values.shape[1:], shape, strict=True):
        matrix = np.zeros((m, n))
        for i in range(m):
            for j in range(n):
                matrix[i, j] = max(0.0, 1 - abs(j - ((i + 0.5) * step - 0.5)) / half_width)
        matrices.append(matrix / matrix.sum(axis=1, keepdims=True))
    return np.einsum("iy,cyx,jx->cij", matrices[0], values, matrices[1])


@settings(max_examples=50, deadline=None)
@given(zoom=zooms, block=blocks, seed=st.integers(0, 99))
def test_any_tile_gives_the_bits_of_the_whole_scaled_plane(zoom: Zoom, block: tuple[int, int], seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 60000, (2, *zoom.shape)).astype(np.uint16)
    expected = pixels_at_scale(zoom, whole(zoom.scaled_shape), of_array(pixels))
    for part in tile_cover(zoom.scaled_shape, block):
        found = pixels_at_scale(zoom, part.write, of_array(pixels))
        np.testing.assert_array_equal(found, expected[:, *part.write.slices])


@settings(max_examples=50, deadline=None)
@given(zoom=zooms, block=blocks, seed=st.integers(0, 99))
def test_any_block_gives_the_bits_of_the_whole_image(zoom: Zoom, block: tuple[int, int], seed: int) -> None:
    scaled = np.random.default_rng(seed).normal(size=(3, *zoom.scaled_shape)).astype(np.float32)
    expected = fields_of_image(zoom, whole(zoom.shape), of_array(scaled))
    for part in tile_cover(zoom.shape, block):
        found = fields_of_image(zoom, part.write, of_array(scaled))
        np.testing.assert_array_equal(found, expected[:, *part.write.slices])


@settings(max_examples=50, deadline=None)
@given(zoom=zooms, seed=st.integers(0, 99))
def test_both_ways_are_the_means_that_loops_give(zoom: Zoom, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.normal(size=(1, *zoom.shape)).astype(np.float32)
    if zoom.scale != 1:
        expected = by_loops(pixels, zoom.scaled_shape, 1 / zoom.scale, max(1, 1 / zoom.scale))
        found = pixels_at_scale(zoom, whole(zoom.scaled_shape), of_array(pixels))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    fields = rng.normal(size=(3, *zoom.scaled_shape)).astype(np.float32)
    expected = by_loops(fields, zoom.shape, zoom.scale, 1.0)
    expected[2] /= zoom.scale
    found = fields_of_image(zoom, whole(zoom.shape), of_array(fields))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("scale", [0.25, 0.5, 0.75, 1.5, 2.0])
def test_pixels_are_those_of_torchs_antialiased_resizing(scale: float) -> None:
    pixels = np.random.default_rng(0).normal(size=(1, 40, 56)).astype(np.float32)
    zoom = Zoom(shape=(40, 56), scale=scale)
    resized = functional.interpolate(
        torch.from_numpy(pixels)[None], size=zoom.scaled_shape, mode="bilinear", antialias=True
    )[0].numpy()
    found = pixels_at_scale(zoom, whole(zoom.scaled_shape), of_array(pixels))
    np.testing.assert_allclose(found, resized, atol=1e-4)


def test_a_block_is_read_in_parts_of_bounded_size() -> None:
    zoom, seen = Zoom(shape=(900, 900), scale=4.0), []

    def blend(box: Box) -> npt.NDArray[np.float32]:
        seen.append(box.shape)
        return np.zeros((3, *box.shape), np.float32)

    assert fields_of_image(zoom, whole(zoom.shape), blend).shape == (3, 900, 900)
    assert len(seen) == 16
    assert max(max(shape) for shape in seen) <= 1026


def test_scale_one_passes_pixels_and_fields_on_as_they_are() -> None:
    zoom, pixels = Zoom(shape=(4, 5)), np.arange(20, dtype=np.uint8).reshape(1, 4, 5)
    assert pixels_at_scale(zoom, whole((4, 5)), of_array(pixels)).dtype == np.uint8


def test_a_large_offset_of_a_wide_type_does_not_eat_the_signal() -> None:
    pixels = np.array([[[2**30, 2**30 + 4]]], np.int64)
    zoom = Zoom(shape=(1, 2), scale=2)
    found = pixels_at_scale(zoom, whole(zoom.scaled_shape), of_array(pixels))
    np.testing.assert_array_equal(found[0, 0] - 2**30, [0, 1, 3, 4])


@pytest.mark.parametrize("scale", [0.0, -1.0, 0.01, 21.0, float("nan"), float("inf")])
def test_scales_out_of_range_are_refused(scale: float) -> None:
    with pytest.raises(InputError, match="--rescale"):
        Zoom(shape=(10, 10), scale=scale)
