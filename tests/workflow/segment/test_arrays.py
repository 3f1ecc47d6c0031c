"""Arrays in and out: numpy, dask and xarray give the same labels; stored images come back as lazy views."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dask.array
import numpy as np
import pytest
import xarray

from sketchscale.errors import InputError, UnknownNameError
from sketchscale.workflow.segment.arrays import open_view, segment_anything, segment_array
from tests.pipeline import draw_nuclei, draw_volume, make_model, store_image
from tests.workflow.finished import SERIAL, SHAPE, copy_of, options


def test_numpy_dask_xarray_and_storage_give_the_same_labels(model: str, done: Path, tmp_path: Path) -> None:
    pixels = draw_nuclei(SHAPE)
    expected = segment_array(pixels, options(model))
    assert expected.dtype == np.uint32
    assert expected.max() > 10
    for given in (dask.array.from_array(pixels, chunks=50), xarray.DataArray(pixels), pixels[None]):
        np.testing.assert_array_equal(segment_anything(given, options(model)), expected)
    image = store_image(tmp_path / "i.zarr", pixels)
    view = segment_anything(image, options(model), SERIAL)
    assert isinstance(view, xarray.DataArray)
    np.testing.assert_array_equal(view.values, expected)
    np.testing.assert_array_equal(open_view(done / "image.zarr", "nuclei").values, expected)


def test_views_are_lazy_and_know_axes_and_positions(done: Path) -> None:
    view = open_view(done / "image.zarr", level=1)
    assert isinstance(view.data, dask.array.Array)
    assert view.dims == ("c", "y", "x")
    assert view.shape == (1, 65, 100)
    np.testing.assert_allclose(np.diff(view.coords["y"].values), 2)
    assert list(view.coords["c"].values) == ["channel_0"]


def test_a_view_of_labels_that_are_not_there_lists_those_that_are(done: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="nuclei"):
        open_view(copy_of(done, tmp_path), "cells")


@pytest.mark.parametrize("shape", [(3, 20, 20), (20, 20, 3), (20,), (0, 5), (2, 2, 20, 20)])
def test_arrays_of_another_shape_are_refused(model: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"\(c, z, y, x\) with 1 channels"):
        segment_array(np.zeros(shape, np.uint8), options(model))


def test_three_axes_that_are_no_channels_are_sections(model: str) -> None:
    volume = draw_volume((6, 40, 40))
    expected = segment_array(volume, replace(options(model), volume=True))
    assert expected.max() > 0
    np.testing.assert_array_equal(segment_array(volume, options(model)), expected)
    named = xarray.DataArray(volume, dims=("z", "y", "x"), coords={"z": np.arange(6) * 2.0})
    found = segment_anything(named, options(model))
    assert isinstance(found, xarray.DataArray)
    assert (found.dims, list(found.coords)) == (("z", "y", "x"), ["z"])
    np.testing.assert_array_equal(found.values, expected)
    few = segment_array(volume[:3], replace(options(model), volume=True))
    assert few.shape == (3, 40, 40)


def test_channels_are_read_in_the_order_they_are_given(tmp_path: Path) -> None:
    model = make_model(tmp_path / "two", channels=2)
    pixels = np.stack([draw_nuclei((70, 70), seed) for seed in (0, 1)])
    one, other = (segment_array(p, options(model)) for p in (pixels, pixels[::-1]))
    assert not np.array_equal(one, other)
