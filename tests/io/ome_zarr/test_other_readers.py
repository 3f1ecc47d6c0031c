"""What other readers of Zarr say of a store with our ledgers: nothing. Every warning is an error here."""

from __future__ import annotations

import warnings

import ngio
import numpy as np
import pytest
import zarr

from sketchscale.io.files.convert import ConvertConfig
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.new_images import commit_labels, create_labels
from sketchscale.io.runs.ledger import MARKS, open_ledger
from sketchscale.io.runs.progress import run_states
from sketchscale.io.stores.blobs import list_blobs, put_blob
from sketchscale.workflow.verify import status
from tests.converted import convert


@pytest.fixture(params=["0.4", "0.5"])
def store(request, tmp_path):
    """A converted image with empty labels, a finished and an unfinished run."""
    np.save(tmp_path / "a.npy", np.zeros((20, 20), np.uint8))
    config = ConvertConfig(version=request.param, chunk=8, levels=2)
    (image,) = convert(tmp_path / "a.npy", tmp_path / "a.zarr", config=config)
    create_labels(image, "cells")
    commit_labels(image, "cells")
    for run, name in (("segment-cells", "result"), ("measure-cells", "arrays")):
        with open_ledger(image.address, run, {"model": "a"}) as ledger:
            ledger.begin("predict", 2)
            ledger.record("predict", "0", 7)
            ledger.commit(name, {"n": 0})
    return image.address


def test_listing_everything_with_zarr_warns_of_nothing(store):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = dict(zarr.open_group(store, mode="r").members(max_depth=None))
        container = ngio.open_ome_zarr_container(store, mode="r")
        assert container.list_labels() == ["cells"]
    assert {"0", "1", "labels", "labels/cells", "labels/cells/0"} <= found.keys()
    assert found[".sketchscale"].shape == (0,)
    assert not [name for name in found if name.startswith(".sketchscale/")]


def test_the_marks_are_no_runs_and_hide_none(store):
    runs = {run.run: run.state for run in run_states(store)}
    assert runs == {"convert": "committed", "measure-cells": "stopped", "segment-cells": "committed"}
    assert len(status(store)) == 3
    with open_ledger(store, "segment-cells", {"model": "a"}, resume=True) as ledger:
        assert ledger.finished("predict") == {"0": 7}
        assert ledger.committed("result") == {"n": 0}


def test_a_run_of_an_earlier_version_is_marked_by_the_next(store, tmp_path):
    for name in MARKS:
        (tmp_path / "a.zarr/.sketchscale" / name).unlink()
    with open_ledger(store, "classify-cells", {}):
        assert len(run_states(store)) == 4
    assert zarr.open_group(store, mode="r")[".sketchscale"].shape == (0,)


def test_a_forgotten_run_leaves_no_marks_unless_another_is_there(tmp_path):
    store = str(tmp_path / "b.zarr")
    put_blob(store, "zarr.json", b'{"zarr_format": 3, "node_type": "group"}')
    first, second = open_ledger(store, "first", {}), open_ledger(store, "second", {})
    first.forget()
    assert f".sketchscale/{next(iter(MARKS))}" in list_blobs(store, ".sketchscale")
    second.forget()
    assert list_blobs(store, "") == ["zarr.json"]


def test_an_image_that_is_replaced_is_marked_again(store, tmp_path):
    config = ConvertConfig(version=open_image(store).metadata.version, chunk=8, levels=2)
    convert(tmp_path / "a.npy", store, config=config, overwrite=True)
    assert {f".sketchscale/{name}" for name in MARKS} <= set(list_blobs(store, ".sketchscale"))
    assert [run.run for run in run_states(store)] == ["convert"]
