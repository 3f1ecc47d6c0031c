"""Object storage against a server that speaks S3."""

from __future__ import annotations

import numpy as np

from sketchscale.geometry import Box
from sketchscale.io.arrays import ArrayRef, create_array, read_box, write_box
from sketchscale.io.blobs import delete_blobs, get_blob, list_blobs, put_blob, put_blob_if_absent


def test_blobs_are_written_read_listed_and_deleted(s3: str) -> None:
    put_blob(f"{s3}/a", "b/c", b"1")
    assert get_blob(f"{s3}/a", "b/c") == b"1"
    assert get_blob(f"{s3}/a", "b/d") is None
    assert [put_blob_if_absent(f"{s3}/a", "b/e", data) for data in (b"1", b"2")] == [True, False]
    assert list_blobs(f"{s3}/a", "b") == ["b/c", "b/e"]
    delete_blobs(f"{s3}/a", "b")
    assert list_blobs(f"{s3}/a", "") == []


def test_an_array_is_written_and_read(s3: str) -> None:
    ref = ArrayRef(store=f"{s3}/image.zarr", path="0")
    create_array(ref, shape=(20, 30), chunks=(16, 16), dtype="uint16")
    values = np.arange(600, dtype=np.uint16).reshape(20, 30)
    write_box(ref, Box((0, 0), (20, 30)), values)
    assert np.array_equal(read_box(ref, Box((0, 0), (20, 30))), values)
