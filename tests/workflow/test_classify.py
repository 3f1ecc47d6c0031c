"""Classes: training on annotated objects, class columns and class image, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sketchscale.config import Execution
from sketchscale.errors import InputError, MissingDataError, OutputExistsError
from sketchscale.geometry import whole
from sketchscale.io.arrays import read_box, write_box
from sketchscale.io.image import commit_labels, create_labels, open_image
from sketchscale.io.table import read_table
from sketchscale.workflow.classify import apply_classes, train_classes
from sketchscale.workflow.count import count
from sketchscale.workflow.measure import measure
from tests.pipeline import draw_nuclei, store_image
from tests.workflow.finished import SERIAL, copy_of, files_of


def test_the_class_image_shows_the_class_of_every_object(done: Path) -> None:
    image = open_image(done / "image.zarr")
    labels = read_box(image.label_ref("nuclei"), whole(image.shapes[0][-2:]))
    classes = read_box(image.label_ref("nuclei_class"), whole(image.shapes[0][-2:]))
    table = read_table(done / "image.zarr", "nuclei")
    number = {"large": 1, "small": 2}
    expected = np.array([0, *(number[name] for name in table.column("class").to_pylist())], np.uint8)
    np.testing.assert_array_equal(classes, expected[labels])
    assert table.column("in_training").to_pylist().count(True) == 8


def test_classes_are_counted_and_classifying_again_needs_overwrite(done: Path, tmp_path: Path) -> None:
    image, classifier = str(copy_of(done, tmp_path)), str(done / "classes")
    assert [row["class"] for row in count(image)] == ["large", "small"]
    with pytest.raises(OutputExistsError, match="--overwrite"):
        apply_classes(image, "nuclei", classifier, SERIAL)
    before = files_of(Path(image) / "tables")
    again = apply_classes(image, "nuclei", classifier, Execution(engine="serial", block=128, overwrite=True))
    assert sum(again.counts.values()) == sum(row["n"] for row in count(image))
    assert files_of(Path(image) / "tables") == before


def test_blocks_are_whole_chunks_of_the_class_image_whatever_the_chunks_of_the_image(
    done: Path, tmp_path: Path
) -> None:
    """Chunks of 48 px in the image, of 64 in the labels: a block in chunks of the image would cut the class image."""
    image = store_image(tmp_path / "i.zarr", draw_nuclei((130, 200)), chunk=48)
    labels = np.zeros((130, 200), np.uint32)
    for k in range(6):
        labels[10:20, 30 * k + 5 : 30 * k + 12] = k + 1
    levels = create_labels(open_image(image), "nuclei", chunks=(64, 64))
    write_box(levels[0], whole(labels.shape), labels)
    commit_labels(open_image(image), "nuclei")
    measure(image, "nuclei", SERIAL)
    counts = apply_classes(image, "nuclei", str(done / "classes"), Execution(engine="serial", block=100)).counts
    assert sum(counts.values()) == 6


def test_a_classifier_is_not_replaced_by_accident(done: Path) -> None:
    with pytest.raises(OutputExistsError, match="--out"):
        train_classes(str(done / "image.zarr"), "nuclei", str(done / "classes.csv"), str(done / "classes"))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("label,class\n1,a\n2,a\n", "at least two classes"),
        ("label,class\n1,a\n999,b\n", "no object at label 999"),
        ("y,x,class\n1,2,a\n900,3,b\n", "outside the image"),
        ("name,kind\n1,a\n", "label,class or y,x,class"),
        ("label,class\n1,a\n1,b\n", "one class an object"),
    ],
)
def test_annotations_that_cannot_be_used_are_refused_before_a_folder_is_made(
    done: Path, tmp_path: Path, table: str, message: str
) -> None:
    path = tmp_path / "c.csv"
    path.write_text(table)
    with pytest.raises(InputError, match=message):
        train_classes(str(done / "image.zarr"), "nuclei", str(path), str(tmp_path / "out"), execution=SERIAL)
    assert not (tmp_path / "out").exists()


def test_objects_have_to_be_measured_first(done: Path, tmp_path: Path) -> None:
    image = copy_of(done, tmp_path)
    (image / "tables" / "zarr.json").unlink()
    with pytest.raises(MissingDataError, match="sketchscale measure"):
        apply_classes(str(image), "nuclei", str(done / "classes"), SERIAL)
