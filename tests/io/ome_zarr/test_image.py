"""Images and labels are written so that other readers agree, and appear only when committed."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import zarr
from ome_zarr_models.v04.image import Image as Image04
from ome_zarr_models.v05.image import Image as Image05

from sketchscale.engine.base import run_plan
from sketchscale.engine.local import SerialEngine
from sketchscale.errors import InputError, MissingDataError, UnknownNameError
from sketchscale.geometry import Box, whole
from sketchscale.io.ome_zarr.arrays import read_box, write_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.new_images import commit_image, commit_labels, create_image, create_labels
from sketchscale.io.ome_zarr.planes import count_absent, read_plane
from sketchscale.io.ome_zarr.pyramid import plan_level


def _make(address, version, shards=None):
    values = np.random.default_rng(3).integers(0, 4000, (2, 50, 70)).astype(np.uint16)
    refs = create_image(
        address, values.shape, "cyx", "u2", (1, 16, 16), spacing=(0.5, 0.25), unit="micrometer",
        channels=("dna", "actin"), version=version, shards=shards, levels=2, name="made here",
    )  # fmt: skip
    write_box(refs[0], whole(values.shape), values)
    run_plan(plan_level(*refs, "mean"), SerialEngine())
    return values


def _label(image, name="cells"):
    ids = np.zeros((50, 70), np.uint32)
    ids[3:9, 60:] = 7
    refs = create_labels(image, name, chunks=(16, 16))
    write_box(refs[0], whole(ids.shape), ids)
    run_plan(plan_level(*refs, "nearest"), SerialEngine())
    return ids


@pytest.mark.parametrize(("version", "shards"), [("0.4", None), ("0.5", None), ("0.5", (1, 32, 32))])
def test_what_is_written_is_read_back_and_validates(tmp_path, version, shards):
    address = tmp_path / "a.zarr"
    values = _make(address, version, shards)
    with pytest.raises(InputError, match=r"no 'multiscales'|no Zarr group"):
        open_image(address)
    image = commit_image(address)
    assert image == open_image(address)
    plane = image.plane()
    assert (plane.channels, plane.spacing, plane.unit) == (("dna", "actin"), (0.5, 0.25), "micrometer")
    np.testing.assert_array_equal(read_plane(plane, Box((3, 5), (40, 70)), [1, 0]), values[::-1, 3:40, 5:70])
    ids = _label(image)
    assert image.labels == ()
    commit_labels(image, "cells", attributes={"made": {"by": "a test"}})
    assert open_image(address).labels == ("cells",)
    np.testing.assert_array_equal(read_box(image.label_ref("cells"), whole(ids.shape)), ids)
    model = Image05 if version == "0.5" else Image04
    valid = model.from_zarr(zarr.open_group(str(address), mode="r"))
    assert valid.labels is not None
    _check_with_ngio(address, values, ids)


def _check_with_ngio(address, values, ids):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ngio

        container = ngio.open_ome_zarr_container(str(address), mode="r")
        assert container.list_labels() == ["cells"]
        np.testing.assert_array_equal(container.get_image(path="0").get_as_numpy(), values)
        np.testing.assert_array_equal(container.get_label("cells", path="0").get_as_numpy(), ids)
        assert container.get_image(path="0").pixel_size.x == 0.25


def test_labels_of_the_samples_follow_their_version_and_validate(tmp_path, shared_data):
    import shutil

    for version in ("0.4", "0.5"):
        name = f"v{version.replace('.', '')}_test_image_yx.zarr"
        copy = tmp_path / name
        shutil.copytree(shared_data / "ome_zarr_samples/ngio" / name, copy)
        image = open_image(copy)
        refs = create_labels(image, "new")
        for ref, shape in zip(refs, [(64, 64), (32, 32)], strict=True):
            write_box(ref, whole(shape), np.ones(shape, np.uint32))
        commit_labels(image, "new", colors={1: (255, 0, 0, 255)})
        again = open_image(copy)
        assert again.labels == ("label", "new")
        assert again.label_image("new").metadata.version == version
        assert again.label_image("new").plane().spacing == image.plane().spacing


def test_unknown_labels_list_the_known_ones(tmp_path):
    _make(tmp_path / "a.zarr", "0.5")
    image = commit_image(tmp_path / "a.zarr")
    _label(image)
    commit_labels(image, "cells")
    with pytest.raises(UnknownNameError, match="did you mean 'cells'"):
        image.label_ref("cell")
    with pytest.raises(MissingDataError, match="has no arrays"):
        commit_labels(image, "other")
    with pytest.raises(InputError, match="label name"):
        create_labels(image, "../outside")


def test_identity_changes_with_a_pixel_and_with_metadata_and_with_nothing_else(tmp_path):
    _make(tmp_path / "a.zarr", "0.5")
    image = commit_image(tmp_path / "a.zarr")
    first = image.identity()
    assert open_image(tmp_path / "a.zarr").identity() == first
    write_box(image.array(), Box((0, 0, 0), (1, 16, 16)), np.ones((1, 16, 16), np.uint16))
    assert image.identity() != first


def test_absent_chunks_are_counted_and_read_as_fill_in_input_but_are_errors_in_our_own_arrays(tmp_path):
    _make(tmp_path / "a.zarr", "0.5")
    plane = commit_image(tmp_path / "a.zarr").plane()
    assert count_absent(plane) == 0
    (tmp_path / "a.zarr/0/c/1/0/2").unlink()
    assert count_absent(plane) == 1
    assert not read_plane(plane, Box((0, 32), (16, 48)), [1]).any()
    with pytest.raises(MissingDataError, match="c/1/0/2 is absent"):
        read_box(plane.array, Box((1, 0, 32), (2, 16, 48)))


def test_consolidated_metadata_does_not_hide_new_labels(tmp_path):
    _make(tmp_path / "a.zarr", "0.5")
    image = commit_image(tmp_path / "a.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(str(tmp_path / "a.zarr"))
    _label(image)
    commit_labels(image, "cells")
    assert "labels/cells/0" in dict(zarr.open_group(str(tmp_path / "a.zarr"), mode="r").members(max_depth=None))
    assert "ome" in json.loads((tmp_path / "a.zarr/zarr.json").read_text())["attributes"]
