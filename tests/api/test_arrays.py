"""Arrays in memory: xarray's names are followed, and figures are those of the same pixels in storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import xarray
from scipy import ndimage

import sketchscale
from sketchscale.errors import InputError, UnknownNameError
from sketchscale.io.ome_zarr.new_images import commit_image, create_image
from sketchscale.io.ome_zarr.table import read_table
from sketchscale.io.stores.addresses import _MEMORY
from sketchscale.workflow.labels.labels import import_labels
from tests.pipeline import draw_nuclei, make_model, store_image
from tests.workflow.finished import SERIAL, SHAPE, options

Array = npt.NDArray[Any]


def drawn_labels(pixels: Array) -> Array:
    """Connected bright pixels, uint32 (y, x)."""
    return ndimage.label(pixels > 90)[0].astype(np.uint32)


def named(pixels: Array, *dims: str, **coords: Any) -> xarray.DataArray:
    return xarray.DataArray(pixels, dims=dims, coords=coords)


# ---- segment


def test_axes_are_found_by_name_in_any_order_and_labels_come_back_named(tmp_path: Path) -> None:
    model = make_model(tmp_path / "two", channels=2)
    pixels = np.stack([draw_nuclei((48, 60), seed) for seed in (0, 1)])
    expected = sketchscale.segment(pixels, options(model))
    assert isinstance(expected, np.ndarray)
    y, x = 5 + 0.5 * np.arange(48), 0.5 * np.arange(60)
    image = named(pixels, "c", "y", "x", y=y, x=x, c=["dna", "actin"], row=("y", np.arange(48)), plate="A")
    lazy = image.chunk({"x": 40})
    turned = image.transpose("x", "c", "y")
    deep = image.expand_dims(("t", "z")).transpose("y", "z", "x", "c", "t")
    shouting = image.rename(y="Y", x="X", c="channel")
    for given in (image, lazy, turned, deep, shouting):
        labels = sketchscale.segment(given, options(model))
        assert isinstance(labels, xarray.DataArray)
        assert (labels.dims, labels.name, labels.dtype) == (("y", "x"), "nuclei", np.uint32)
        np.testing.assert_array_equal(labels.values, expected)
        np.testing.assert_array_equal(labels.coords["y"].values, y)
        np.testing.assert_array_equal(labels.coords["x"].values, x)
        assert set(labels.coords) == {"y", "x", "row", "plate"}
    assert not np.array_equal(sketchscale.segment(pixels[::-1], options(model)), expected)


@pytest.mark.parametrize(
    ("dims", "says"),
    [
        (("t", "y", "x"), r"2 positions along t; .* choose one with \.isel\(t=0\)"),
        (("c", "row", "column"), r"axes c, row, column; .* \.rename"),
        (("y", "x", "Y"), "axes y, x, Y"),
    ],
)
def test_axes_that_do_not_name_one_image_are_refused(dims: tuple[str, ...], says: str, model: str) -> None:
    with pytest.raises(InputError, match=says):
        sketchscale.segment(named(np.zeros((2, 20, 20), np.uint8), *dims), options(model))


def test_numpy_and_dask_give_numpy(model: str) -> None:
    pixels = draw_nuclei((70, 90))
    for given in (pixels, dask.array.from_array(pixels, chunks=40), pixels.tolist()):
        assert type(sketchscale.segment(given, options(model))) is np.ndarray


# ---- measure


@pytest.mark.parametrize("channels", [0, 2])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_the_table_of_arrays_is_the_stored_one_to_the_bit(channels: int, kind: type, tmp_path: Path) -> None:
    plane = draw_nuclei((90, 70))
    labels = drawn_labels(plane)
    pixels = (np.stack([plane, plane[::-1]]) if channels else plane).astype(kind)
    image = store_image(tmp_path / "i.zarr", pixels, chunk=32)
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    import_labels(str(tmp_path / "labels.tif"), image, "nuclei", SERIAL)
    sketchscale.measure(image, "nuclei", SERIAL)
    expected = read_table(image, "nuclei")
    if channels:
        pixels_named = named(pixels, "c", "y", "x")
        expected = expected.rename_columns(
            [n.replace("c0", "channel_0").replace("c1", "channel_1") for n in expected.column_names]
        )
    else:
        pixels_named = named(pixels, "y", "x").transpose("x", "y")
    for given in (pixels, dask.array.from_array(pixels), pixels_named):
        table = sketchscale.measure(given, labels, engine="serial")
        assert table.column_names == expected.column_names
        assert table.equals(expected)
    assert table.num_rows == labels.max()
    assert not [name for name in _MEMORY if name.startswith("temporary-")]


def test_views_of_a_stored_image_are_measured_in_its_um(tmp_path: Path) -> None:
    pixels = draw_nuclei((60, 70))
    address = str(tmp_path / "um.zarr")
    create_image(address, pixels.shape, "yx", "uint8", (32, 32), spacing=(0.3, 0.7), unit="micrometer", levels=1)
    commit_image(address)
    view = sketchscale.open(address)
    labels = drawn_labels(pixels)
    table = sketchscale.measure(view.copy(data=pixels), labels, features=["area_um2"])
    np.testing.assert_allclose(table["area_um2"].to_numpy(), np.bincount(labels.ravel())[1:] * 0.3 * 0.7)


def test_labels_that_do_not_fit_are_refused() -> None:
    image = draw_nuclei((40, 50))
    with pytest.raises(InputError, match=r"labels of shape \(50, 40\) for an image of shape \(40, 50\)"):
        sketchscale.measure(image, np.zeros((50, 40), int))
    with pytest.raises(InputError, match="labels of type float64, with fractions"):
        sketchscale.measure(image, np.zeros((40, 50)))
    with pytest.raises(InputError, match="negative numbers"):
        sketchscale.measure(image, np.full((40, 50), -1))
    with pytest.raises(InputError, match=r"the label 4294967296; expected: labels below 2\^32"):
        sketchscale.measure(image, np.full((40, 50), 2**32))
    with pytest.raises(InputError, match="an image in memory, and labels 'nuclei'"):
        sketchscale.measure(image)
    with pytest.raises(InputError, match="an image in storage, and labels that are a ndarray"):
        sketchscale.measure("a.zarr", image)


# ---- evaluate


def test_the_scores_of_arrays_are_those_of_the_same_labels_in_storage(done: Path, tmp_path: Path) -> None:
    found = sketchscale.open(done / "image.zarr", "nuclei")
    truth = np.roll(drawn_labels(draw_nuclei(SHAPE)), 1, axis=0)
    tifffile.imwrite(tmp_path / "truth.tif", truth)
    stored = sketchscale.evaluate(done / "image.zarr", "nuclei", tmp_path / "truth.tif", SERIAL)
    for record in (
        sketchscale.evaluate(found, truth),
        sketchscale.evaluate(labels=found.values.astype(np.int64), truth=truth.astype(np.uint16), block=64),
    ):
        assert list(record) == list(stored)
        names = ("image", "labels", "truth")
        assert {k: v for k, v in record.items() if k not in names} == {
            k: v for k, v in stored.items() if k not in names
        }
    assert sketchscale.evaluate(found, truth)["labels"] == "nuclei"
    volume = truth[: 2 * (SHAPE[0] // 2)].reshape(2, -1, SHAPE[1])
    assert sketchscale.evaluate(volume, volume)["f1"]["0.95"] == 1


def test_what_cannot_be_compared_is_refused() -> None:
    labels = np.eye(4, dtype=int)
    with pytest.raises(InputError, match=r"labels of shape \(4, 4\), a truth of shape \(3, 3\)"):
        sketchscale.evaluate(labels, np.eye(3, dtype=int))
    with pytest.raises(InputError, match="truth of type float64"):
        sketchscale.evaluate(labels, labels / 2)
    with pytest.raises(InputError, match=r"evaluate\(\) of str, ndarray; .* two label arrays"):
        sketchscale.evaluate("a.zarr", labels)
    with pytest.raises(UnknownNameError, match=r"unknown option of evaluate\(\): 'treshold'.*thresholds"):
        sketchscale.evaluate(labels, labels, treshold=0.5)
