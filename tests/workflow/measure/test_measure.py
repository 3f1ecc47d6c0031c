"""Tables: the same bytes whatever the blocks, engines and interruptions; labels of other tools; counting."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from sketchscale.cli import run
from sketchscale.config import Execution
from sketchscale.engine.base import Event
from sketchscale.errors import BudgetError, MissingDataError, OutputExistsError, ResumeError, UnknownNameError
from sketchscale.geometry import whole
from sketchscale.io.ome_zarr.arrays import read_box, write_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.new_images import commit_labels, create_labels
from sketchscale.io.ome_zarr.table import read_table
from sketchscale.workflow.classify.apply import apply_classes
from sketchscale.workflow.measure.count import count
from sketchscale.workflow.measure.export_table import export_table
from sketchscale.workflow.measure.measure import measure
from tests.pipeline import draw_nuclei, store_image
from tests.workflow.finished import SERIAL, copy_of, files_of
from tests.workflow.killed import run_killed


def forget(image: Path) -> str:
    """The image as it was before it was measured."""
    shutil.rmtree(image / "tables")
    shutil.rmtree(image / "labels" / "nuclei_class")
    for name in ("measure-nuclei", "classify-nuclei"):
        shutil.rmtree(image / ".sketchscale" / name)
    return str(image)


def results(image: str | Path) -> dict[str, bytes]:
    """All files of tables and of the class image."""
    return {
        f"{part}/{name}": data
        for part in ("tables", "labels/nuclei_class")
        for name, data in files_of(Path(image) / part).items()
    }


@pytest.mark.parametrize(
    "execution",
    [
        Execution(engine="serial", block=192),
        Execution(engine="serial", block=4096),
        Execution(engine="threads", workers=3, block=128),
        Execution(engine="processes", workers=2, block=128),
    ],
    ids=lambda e: f"{e.engine}-{e.block}",
)
def test_blocks_and_engines_do_not_change_a_byte_of_table_or_class_image(
    done: Path, tmp_path: Path, execution: Execution
) -> None:
    image = copy_of(done, tmp_path)
    expected = results(image)
    forget(image)
    measure(str(image), "nuclei", execution)
    apply_classes(str(image), "nuclei", str(done / "classes"), execution)
    assert results(image) == expected
    assert len(expected) >= 7


@pytest.mark.parametrize("kills", [(13,), pytest.param((13, 15, 40), marks=pytest.mark.slow)])
def test_killed_while_measuring_or_classifying_and_resumed_the_bytes_are_the_same(
    done: Path, tmp_path: Path, kills: tuple[int, ...]
) -> None:
    image = copy_of(done, tmp_path)
    expected = results(image)
    forget(image)
    serial = [str(image), "--engine", "serial", "--block", "64", "--resume"]
    classify = ["classify", "apply", *serial, "--classifier", str(done / "classes"), "--precision", "float32"]
    commands = [["measure", *serial], classify]
    for operations in kills:
        result = run_killed(commands, operations)
        assert result.returncode == -9, result.stderr
        assert list(image.rglob("*.partial"))
    result = run_killed(commands)
    assert result.returncode == 0, result.stderr
    assert results(image) == expected
    assert not list(image.rglob("*.partial"))
    assert not list(image.rglob("scratch"))


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        (["segment", "--model", "MODEL", "--max-size", "80"], "labels/nuclei/0/c/0"),
        (["measure"], "tables/nuclei"),
        (["classify", "apply", "--classifier", "CLASSES"], "labels/nuclei_class/0/c/0"),
    ],
    ids=["segment", "measure", "classify"],
)
def test_a_resumed_run_removes_what_a_killed_writer_left(
    done: Path, tmp_path: Path, model: str, command: list[str], folder: str
) -> None:
    image = copy_of(done, tmp_path)
    stray = image / folder / "0.0123456789abcdef.partial"
    stray.write_bytes(b"half")
    for part in ("commit", "stage", "ledger"):  # killed just after the start
        shutil.rmtree(image / f".sketchscale/{command[0]}-nuclei/{part}", ignore_errors=True)
    names = {"MODEL": model, "CLASSES": str(done / "classes")}
    words = [names.get(word, word) for word in command]
    assert run([*words, str(image), "--engine", "serial", "--block", "128", "--resume"]) == 0
    assert not stray.exists()


def test_finished_tasks_are_not_run_again(done: Path, tmp_path: Path) -> None:
    """Interrupted after the second of four blocks: two are left to do."""
    image = forget(copy_of(done, tmp_path))

    def interrupt(event: Event) -> None:
        if event.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(image, "nuclei", SERIAL, interrupt)
    assert not (Path(image) / "tables").exists()
    seen: list[str] = []
    again = Execution(engine="serial", block=128, resume=True)
    measure(image, "nuclei", again, lambda e: seen.append(e.kind if e.stage == "measure" else e.stage))
    assert seen.count("done") == 2
    assert seen.count("skipped") == 1


def test_the_table_agrees_with_the_labels(done: Path) -> None:
    image = open_image(done / "image.zarr").label_image("nuclei")
    labels = read_box(image.array(0), whole(image.shapes[0]))
    table = read_table(done / "image.zarr", "nuclei")
    assert table.column("label").to_pylist() == list(range(1, labels.max() + 1))
    assert table.column("area").to_pylist() == np.bincount(labels.ravel())[1:].tolist()


def test_labels_of_another_tool_are_measured_and_an_empty_image_has_no_rows(tmp_path: Path) -> None:
    image = store_image(tmp_path / "i.zarr", draw_nuclei((40, 50)))
    for name, value in (("square", 7), ("nothing", 0)):
        levels = create_labels(open_image(image), name, chunks=(32, 32))
        labels = np.zeros((40, 50), np.uint32)
        labels[4:10, 5:9] = value
        write_box(levels[0], whole((40, 50)), labels)
        commit_labels(open_image(image), name)
        measure(image, name, SERIAL, profile="pycytominer")
    columns = export_table(image, "nothing", str(tmp_path / "nothing.parquet"), format="parquet")
    assert (columns.n, pq.read_schema(tmp_path / "nothing.parquet").names[:3]) == (0, ["label", "y", "x"])
    assert read_table(image, "nothing_pycytominer").num_rows == 0
    assert read_table(image, "square").select(["label", "area", "y", "x"]).to_pylist() == [
        {"label": 7, "area": 24, "y": 6.5, "x": 6.5}
    ]
    assert count(image, "square") == [{"image": image, "labels": "square", "class": None, "n": 1}]
    assert count(image, "nothing")[0]["n"] == 0


def test_a_table_is_neither_replaced_nor_resumed_by_accident(done: Path, tmp_path: Path) -> None:
    image = str(copy_of(done, tmp_path))
    with pytest.raises(OutputExistsError, match="--overwrite"):
        measure(image, "nuclei", SERIAL)
    with pytest.raises(ResumeError, match="block"):
        measure(image, "nuclei", Execution(engine="serial", block=4096, resume=True))
    n = sum(row["n"] for row in count(image))
    assert measure(image, "nuclei", Execution(engine="serial", overwrite=True)).n == n > 10


def test_a_budget_that_is_too_small_leaves_nothing_behind(done: Path, tmp_path: Path) -> None:
    image = forget(copy_of(done, tmp_path))
    before = files_of(Path(image))
    with pytest.raises(BudgetError, match="--block"):
        measure(image, "nuclei", Execution(engine="serial", memory_gb=1e-6))
    assert files_of(Path(image)) == before


def test_what_is_not_there_is_named(done: Path, tmp_path: Path) -> None:
    image = str(copy_of(done, tmp_path))
    with pytest.raises(UnknownNameError, match="did you mean 'nuclei'"):
        measure(image, "nucleii", SERIAL)
    with pytest.raises(MissingDataError, match="sketchscale measure"):
        count(image, "cells")
