"""`verify` finds every kind of damage and nothing else; `status` says what ran."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zarr

from sketchscale.errors import InputError
from sketchscale.geometry import Box
from sketchscale.io.ome_zarr.arrays import read_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.table import read_table
from sketchscale.workflow.verify import status, verify
from tests.pipeline import draw_nuclei, store_image
from tests.workflow.finished import copy_of, files_of


def chunk(array: Path) -> Path:
    """The first chunk of an array."""
    return next(p for p in sorted(array.rglob("*")) if p.is_file() and p.name.isdigit())


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit_table(image: Path) -> None:
    """One coordinate, which no sum notices."""
    path = image / "tables" / "nuclei" / "table.parquet"
    table = pyarrow.parquet.read_table(path)
    moved = pyarrow.array([value + 1 for value in table.column("x").to_pylist()])
    pyarrow.parquet.write_table(table.set_column(table.column_names.index("x"), "x", moved), path)


def drop_row(image: Path) -> None:
    path = image / "tables" / "nuclei" / "table.parquet"
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).slice(1), path)


def change_pixel(image: Path) -> None:
    """One grey level in one pixel, through the store's own codec."""
    level = open_image(image).array(0)
    box = Box((0, 70, 100), (1, 71, 101))
    zarr.open_array(Path(level.store) / level.path, mode="r+")[box.slices] = read_box(level, box) ^ 1


def lose_record(image: Path) -> None:
    run = image / ".sketchscale/segment-nuclei"
    next((run / "ledger/relabel").iterdir()).unlink()
    flip(run / "stage/relabel/end.gz")


def rename(image: Path) -> None:
    path = image / "zarr.json"
    path.write_text(path.read_text().replace("image.npy", "other.npy"))


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a flipped byte in a label chunk": (lambda i: flip(chunk(i / "labels/nuclei/0")), "labels/nuclei: blocks"),
    "a deleted label chunk": (lambda i: chunk(i / "labels/nuclei/0").unlink(), "labels/nuclei: blocks"),
    "a flipped byte in the pyramid": (lambda i: flip(chunk(i / "labels/nuclei/1")), "labels/nuclei: pyramid"),
    "a deleted chunk of the pyramid": (lambda i: chunk(i / "labels/nuclei/1").unlink(), "labels/nuclei: pyramid"),
    "a flipped byte in the class image": (lambda i: flip(chunk(i / "labels/nuclei_class/0")), "nuclei_class: blocks"),
    "labels that are gone": (lambda i: shutil.rmtree(i / "labels/nuclei"), "segment-nuclei is readable"),
    "an edited table": (edit_table, "tables/nuclei: bytes"),
    "a table without one row": (drop_row, "tables/nuclei: a row per object"),
    "a flipped byte in the table": (lambda i: flip(i / "tables/nuclei/table.parquet"), "tables/nuclei: bytes"),
    "a pixel of the input": (change_pixel, "input unchanged"),
    "a lost chunk of the input": (lambda i: chunk(i / "0").unlink(), "input unchanged"),
    "the metadata of the input": (rename, "input unchanged"),
    "a run that did not finish": (
        lambda i: (i / ".sketchscale/segment-nuclei/commit/result.json").unlink(),
        "segment-nuclei is committed",
    ),
    "a damaged commit": (
        lambda i: flip(i / ".sketchscale/measure-nuclei/commit/result.json"),
        "is readable",
    ),
    "a lost record of the ledger, and the note of all records": (lose_record, "labels/nuclei: blocks"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_and_named(done: Path, tmp_path: Path, name: str) -> None:
    damage, expected = DAMAGE[name]
    image = copy_of(done, tmp_path)
    damage(image)
    bad = [check["check"] for check in verify(str(image)) if not check["ok"]]
    assert any(expected in check for check in bad), bad


def test_an_intact_image_passes_and_nothing_is_written(done: Path, tmp_path: Path) -> None:
    image = copy_of(done, tmp_path)
    before = files_of(image)
    checks = verify(str(image))
    assert all(check["ok"] for check in checks), checks
    assert len(checks) >= 13
    assert files_of(image) == before


def test_a_copy_that_keeps_no_times_is_the_same_input(done: Path, tmp_path: Path) -> None:
    image = tmp_path / "copy.zarr"
    shutil.copytree(done / "image.zarr", image, copy_function=shutil.copyfile)
    os.utime(chunk(image / "0"), (1, 1))
    checks = {check["check"]: check for check in verify(str(image))}
    assert all(check["ok"] for check in checks.values()), checks
    assert "pixels and metadata are the same" in checks["input unchanged since"]["found"]


def test_an_image_without_results_is_refused(tmp_path: Path) -> None:
    image = store_image(tmp_path / "i.zarr", draw_nuclei((20, 20)))
    with pytest.raises(InputError, match="sketchscale segment"):
        verify(image)
    assert status(image) == []


def test_status_lists_the_runs_with_their_finished_tasks(done: Path, tmp_path: Path) -> None:
    image = copy_of(done, tmp_path)
    (image / ".sketchscale/measure-nuclei/commit/result.json").unlink()
    rows = {row["run"]: row for row in status(str(image))}
    assert set(rows) == {"convert", "segment-nuclei", "measure-nuclei", "classify-nuclei"}
    assert rows["segment-nuclei"]["committed"]
    assert not rows["measure-nuclei"]["committed"]
    assert rows["measure-nuclei"]["stages"] == {"crops": 2, "measure": 4}
    assert read_table(str(image), "nuclei").num_rows > 10
