"""Every store of other writers is read, or refused in one line for the reason it is invalid."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from sketchscale.errors import InputError
from sketchscale.geometry import Box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.planes import count_absent, read_plane
from sketchscale.io.ome_zarr.plate import image_addresses, open_plate

_REFUSED = {
    "image-01": "no 'multiscales'",
    "image-02": "at least 1 item",
    "image-03": "/0 does not exist",
    "image-04": "3 axes in the metadata, 2 in array '1'",
}


@pytest.fixture(scope="module")
def samples(shared_data):
    folder = shared_data / "ome_zarr_samples"
    with (folder / "manifest.csv").open() as file:
        return folder, list(csv.DictReader(file))


def test_every_sample_is_read_or_refused_for_its_reason(samples):
    folder, rows = samples
    read = refused = 0
    for row in rows:
        path = folder / row["path"]
        if "/invalid/" in row["path"]:
            with pytest.raises(InputError) as caught:
                open_image(path)
            assert _REFUSED[path.stem] in str(caught.value)
            assert "\n" not in str(caught.value)
            refused += 1
        else:
            for address in image_addresses(path):
                _check_sample(row, address)
            read += 1
    assert (read, refused) == (29, 4)


def _check_sample(row, address):
    image = open_image(address)
    assert image.metadata.version == (row["ngff_version"] or "0.5")
    if row["level0_shape"]:
        assert "x".join(map(str, image.shapes[0])) == row["level0_shape"]
        assert image.dtype == row["dtype"]
    if row["n_levels"]:
        assert len(image.shapes) == int(row["n_levels"])
    last = len(image.shapes) - 1
    t, z = (0 if a in image.metadata.order else None for a in "tz")
    plane = image.plane(last, t=t, z=z)
    pixels = read_plane(plane, Box((0, 0), plane.shape))
    assert pixels.shape == (len(plane.channels), *plane.shape)
    assert pixels.dtype == plane.dtype
    if "max=" in row["check"] and image.shapes[0] == plane.shape:
        assert float(pixels.max()) == float(row["check"].partition("max=")[2])


def test_known_facts_of_some_samples(samples):
    folder, _ = samples
    scaled = open_image(folder / "neuroglancer/simple_0.4.zarr")
    assert [level.path for level in scaled.metadata.levels] == ["scale0/image", "scale1/image", "scale2/image"]
    assert scaled.plane().unit == "micrometer"
    np.testing.assert_allclose(scaled.plane().spacing, (0.004, 0.03))
    zipped = open_image(folder / "neuroglancer/simple_0.5.zip")
    assert read_plane(zipped.plane(), Box((9, 9), (10, 10))).item() == 99
    assert count_absent(open_image(folder / "ome-zarr-examples/valid/image-01.zarr").plane()) == 100
    channels = open_image(folder / "ome-zarr-fiji-java/5d_dataset_v5.ome.zarr").channels
    assert channels == ("lynEGFP", "NLStdTomato", "lynEGFP")
    for version in ("v04", "v05"):
        assert open_image(folder / f"ngio/{version}_test_image_yx.zarr").labels == ("label",)


def test_a_plate_lists_its_fields_and_a_collection_its_series(samples):
    folder, _ = samples
    plate = open_plate(folder / "ome-zarr-examples/valid/plate-01.zarr")
    assert [(field.well, field.path) for field in plate.fields] == [
        ("A01", "0"),
        ("A02", "0"),
        ("B01", "0"),
        ("B02", "0"),
    ]
    assert plate.missing == ()
    with pytest.raises(InputError, match="is a plate"):
        open_image(plate.address)
    collection = folder / "ome-zarr-fiji-java/bf2raw_dataset_v5.ome.zarr"
    assert [a.rpartition("/")[2] for a in image_addresses(collection)] == ["0", "1"]
    assert open_image(collection, series=1).group == "1"
    with pytest.raises(InputError, match="series 2 of 2"):
        open_image(collection, series=2)


def test_several_slices_need_a_choice(samples):
    folder, _ = samples
    image = open_image(folder / "ngio/v05_test_image_tczyx.zarr")
    with pytest.raises(InputError, match="10 positions along z"):
        image.plane(t=0)
    assert image.plane(t=3, z=9).index == (("t", 3), ("z", 9))
    with pytest.raises(InputError, match="outside 0 to 9"):
        image.plane(t=0, z=10)
