"""The same storage code on Azure's emulator."""

from __future__ import annotations

import numpy as np
import pytest

from sketchscale.errors import MissingDataError
from sketchscale.geometry import Box
from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array, read_box, write_box
from sketchscale.io.stores.blobs import change_blob, delete_blobs, get_blob, list_blobs, put_blob, put_blob_if_absent
from tests.faults.azurite import azure  # noqa: F401  a fixture

pytestmark = pytest.mark.slow


def test_arrays_records_and_changes_work_on_azure(azure: str) -> None:  # noqa: F811
    ref = ArrayRef(store=f"{azure}/image.zarr", path="0")
    values = np.arange(600, dtype=np.uint16).reshape(20, 30)
    create_array(ref, shape=(20, 30), chunks=(8, 8), shards=(16, 16), dtype="uint16")
    write_box(ref, Box((0, 0), (20, 30)), values)
    assert np.array_equal(read_box(ref, Box((2, 3), (7, 20))), values[2:7, 3:20])
    assert [put_blob_if_absent(azure, "commit", data) for data in (b"1", b"2")] == [True, False]
    for digit in b"12":
        change_blob(azure, "list", lambda old, digit=digit: (old or b"") + bytes([digit]))
    assert get_blob(azure, "list") == b"12"
    delete_blobs(ref.store, "0/c/1")
    with pytest.raises(MissingDataError, match="is absent"):
        read_box(ref, Box((0, 0), (20, 30)))
    delete_blobs(azure, "image.zarr")
    assert list_blobs(azure, "") == ["commit", "list"]
    with pytest.raises(MissingDataError, match="no such bucket"):
        put_blob("az://nothing", "a", b"")
