"""Sharded images and labels: fewer, larger objects, each written by one task, and the same bytes however it is cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from sketchscale.config import Execution, SegmentOptions
from sketchscale.errors import InputError
from sketchscale.io.files.convert import ConvertConfig
from sketchscale.io.ome_zarr.arrays import open_array, write_unit
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.stores.blobs import list_blobs
from sketchscale.workflow.convert import convert_images
from sketchscale.workflow.measure.measure import measure
from sketchscale.workflow.segment.segment import segment
from sketchscale.workflow.verify import verify
from tests.cluster.results import results_of
from tests.object_store import s3, s3_server
from tests.pipeline import draw_nuclei

pytestmark = pytest.mark.slow

__all__ = ["s3", "s3_server"]

CUTS = (
    Execution(engine="serial", block=64),
    Execution(engine="threads", workers=3, block=128),
    Execution(engine="serial", block=4096),
)


def outline(tmp_path: Path, place: str, model: str, execution: Execution, shard: int | None = 128) -> str:
    """An image of chunks of 32 px at a place, with its labels and table; its address."""
    tifffile.imwrite(tmp_path / "drawn.tif", draw_nuclei((200, 330)))
    convert_images(str(tmp_path / "drawn.tif"), place, ConvertConfig(chunk=64, shard=shard, levels=2), execution)
    segment(place, SegmentOptions(model=model), execution)
    measure(place, "nuclei", execution)
    return place


def test_labels_are_sharded_like_their_image_and_the_cut_does_not_show(tmp_path: Path, model: str, s3: str) -> None:
    places = [f"{s3}/plates/{i}.zarr" if i == 1 else str(tmp_path / str(i)) for i in range(len(CUTS))]
    found = [
        results_of(outline(tmp_path, place, model, execution)) for place, execution in zip(places, CUTS, strict=True)
    ]
    assert found[0] == found[1] == found[2]
    assert all(check["ok"] for check in verify(places[1]))
    labels = open_array(open_image(places[1]).label_image("nuclei").array(0))
    assert (write_unit(labels), labels.chunks) == ((128, 128), (64, 64))
    assert len([key for key in found[0] if key.startswith("labels/nuclei/0/c")]) == 2 * 3


def test_shards_change_the_objects_and_not_the_labels(tmp_path: Path, model: str) -> None:
    stored = []
    for shard in (None, 128):
        image = open_image(outline(tmp_path, str(tmp_path / f"{shard}"), model, CUTS[0], shard))
        stored.append(open_array(image.label_image("nuclei").array(0))[:])
        keys = list_blobs(image.address, "labels/nuclei/0/c")
        assert len(keys) == (4 * 6 if shard is None else 2 * 3)
    np.testing.assert_array_equal(stored[0], stored[1])


def test_labels_of_an_unsharded_image_are_sharded_on_demand(tmp_path: Path, image: str, model: str) -> None:
    segment(image, SegmentOptions(model=model, shard=192), CUTS[0])
    assert write_unit(open_array(open_image(image).label_image("nuclei").array(0))) == (192, 192)


def test_shards_that_cut_a_chunk_are_refused_before_anything_is_written(image: str, model: str) -> None:
    with pytest.raises(InputError, match=r"shards of 100 x 100 px for chunks of 64 x 64 px.*whole chunks"):
        segment(image, SegmentOptions(model=model, shard=100), CUTS[0])
    assert not list_blobs(image, ".sketchscale")
