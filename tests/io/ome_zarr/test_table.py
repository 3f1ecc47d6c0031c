"""Tables: same rows, same bytes; ngio reads them; damage is an error."""

from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa
import pytest

from sketchscale.errors import InputError, UnknownNameError
from sketchscale.geometry import whole
from sketchscale.io.ome_zarr.arrays import write_box
from sketchscale.io.ome_zarr.new_images import commit_image, commit_labels, create_image, create_labels
from sketchscale.io.ome_zarr.table import ROW_GROUP, list_tables, read_batches, read_table, write_table


def _rows(count):
    return pa.table({"label": pa.array(np.arange(1, count + 1), pa.int64()), "area_um2": np.arange(count) / 7})


@pytest.mark.parametrize("batch", [1000, ROW_GROUP, 100_000])
def test_bytes_depend_on_the_rows_and_not_on_how_they_arrive(tmp_path, batch):
    rows = _rows(ROW_GROUP * 2 + 17)
    write_table(tmp_path / "whole.zarr", "cells", rows, region="cells")
    write_table(tmp_path / "parts.zarr", "cells", iter(rows.to_batches(max_chunksize=batch)), region="cells")
    files = [tmp_path / name / "tables/cells/table.parquet" for name in ("whole.zarr", "parts.zarr")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert read_table(tmp_path / "parts.zarr", "cells").equals(rows)
    sizes = [b.num_rows for b in read_batches(tmp_path / "parts.zarr", "cells", columns=["label"])]
    assert sizes == [ROW_GROUP, ROW_GROUP, 17]


def test_a_table_without_rows_is_one_empty_batch_with_its_columns(tmp_path):
    write_table(tmp_path, "cells", _rows(0), region="cells")
    (batch,) = read_batches(tmp_path, "cells", columns=["label", "absent"])
    assert (batch.num_rows, batch.schema.names) == (0, ["label"])
    write_table(tmp_path, "again", read_batches(tmp_path, "cells"), region="cells")
    assert read_table(tmp_path, "again").equals(_rows(0))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ngio_reads_the_table(tmp_path, version):
    address = str(tmp_path / "a.zarr")
    write_box(
        create_image(address, (8, 8), "yx", "u1", (8, 8), version=version)[0], whole((8, 8)), np.ones((8, 8), "u1")
    )
    image = commit_image(address)
    write_box(create_labels(image, "cells")[0], whole((8, 8)), np.ones((8, 8), "u4"))
    commit_labels(image, "cells")
    write_table(address, "cells", _rows(3), region="cells", attributes={"measured": "here"})
    write_table(address, "empty", _rows(0), region="cells")
    assert list_tables(address) == ("cells", "empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ngio

        container = ngio.open_ome_zarr_container(address, mode="r")
        assert container.list_tables() == ["cells", "empty"]
        table = container.get_table("cells")
        assert type(table).__name__ == "FeatureTableV1"
        assert table.reference_label == "cells"
        assert table.dataframe.index.tolist() == [1, 2, 3]
        np.testing.assert_array_equal(table.dataframe["area_um2"], np.arange(3) / 7)


def test_a_flipped_bit_and_a_cut_file_are_errors(tmp_path):
    write_table(tmp_path, "cells", _rows(500), region="cells")
    file = tmp_path / "tables/cells/table.parquet"
    good = file.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(4, len(good) // 2, 30):
        bad = bytearray(good)
        bad[position] ^= 1 << int(rng.integers(8))
        file.write_bytes(bytes(bad))
        try:
            same = read_table(tmp_path, "cells").equals(_rows(500))
        except InputError as error:
            same = "\n" not in str(error)
        assert same, f"byte {position} changed rows without an error, or gave more than one line"
    file.write_bytes(good[: len(good) // 2])
    with pytest.raises(InputError, match="not readable"):
        read_table(tmp_path, "cells")


def test_bad_tables_are_refused_and_leave_nothing(tmp_path):
    with pytest.raises(InputError, match="a column 'label'"):
        write_table(tmp_path, "cells", pa.table({"id": [1]}), region="cells")
    with pytest.raises(InputError, match="table name"):
        write_table(tmp_path, "../cells", _rows(1), region="cells")
    different = [*_rows(1).to_batches(), *pa.table({"label": [1.5], "other": [1]}).to_batches()]
    with pytest.raises(InputError, match="batches of different columns"):
        write_table(tmp_path, "cells", iter(different), region="cells")
    assert list_tables(tmp_path) == ()
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    with pytest.raises(UnknownNameError, match="known: none"):
        read_table(tmp_path, "cells")
