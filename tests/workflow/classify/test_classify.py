"""Classes: training on annotated objects, class columns and class image, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sketchscale.cli import run
from sketchscale.config import ClassifyOptions, Execution, load_study
from sketchscale.errors import InputError, MissingDataError, OutputError, OutputExistsError
from sketchscale.geometry import whole
from sketchscale.io.ome_zarr.arrays import read_box, write_box
from sketchscale.io.ome_zarr.groups import read_attributes
from sketchscale.io.ome_zarr.image import Image, open_image
from sketchscale.io.ome_zarr.new_images import commit_labels, create_labels
from sketchscale.io.ome_zarr.table import read_table, write_table
from sketchscale.io.stores.addresses import split_address
from sketchscale.objects.classifiers import load_classifier
from sketchscale.workflow.classify import apply as classify
from sketchscale.workflow.classify.apply import apply_classes, train_classes
from sketchscale.workflow.classify.gallery import check_gallery, write_gallery
from sketchscale.workflow.measure.count import count
from sketchscale.workflow.measure.measure import measure
from sketchscale.workflow.verify import verify
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
        ("label,class\n1,a\n1,b\n", "one class per object"),
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


@pytest.mark.parametrize(
    ("side", "init", "message"), [(5000, False, "at most 1024 px"), (12, True, "--side 12 and a start with patches")]
)
def test_a_side_that_cannot_be_had_is_refused_before_a_folder_is_made(
    done: Path, tmp_path: Path, side: int, init: bool, message: str
) -> None:
    options = ClassifyOptions(side=side, init=str(done / "classes") if init else None)
    out = tmp_path / "out"
    with pytest.raises(InputError, match=message):
        train_classes(str(done / "image.zarr"), "nuclei", str(done / "classes.csv"), str(out), options)
    assert not out.exists()


def test_objects_have_to_be_measured_first(done: Path, tmp_path: Path) -> None:
    image = copy_of(done, tmp_path)
    (image / "tables" / "zarr.json").unlink()
    with pytest.raises(MissingDataError, match="sketchscale measure"):
        apply_classes(str(image), "nuclei", str(done / "classes"), SERIAL)


def first_rows(image: Path, n: int = 400) -> list[dict[str, object]]:
    return list(read_table(image, "nuclei").slice(0, n).to_pylist())


def pixels_of(image: Path, name: str) -> np.ndarray:
    opened = open_image(image)
    return np.asarray(read_box(opened.label_ref(name), whole(opened.shapes[0][-2:])))


def test_masks_hold_the_objects_of_one_class_with_their_ids_and_are_verified(done: Path, tmp_path: Path) -> None:
    image = copy_of(done, tmp_path)
    again = Execution(engine="serial", block=128, overwrite=True)
    result = apply_classes(str(image), "nuclei", str(done / "classes"), again, masks=True)
    assert result.masks == ("nuclei_large", "nuclei_small")
    labels, classes = pixels_of(image, "nuclei"), pixels_of(image, "nuclei_class")
    for code, name in enumerate(result.masks, start=1):
        mask = pixels_of(image, name)
        assert mask.dtype == labels.dtype
        np.testing.assert_array_equal(mask, np.where(classes == code, labels, 0))
    checks = verify(str(image))
    assert all(check["ok"] for check in checks)
    assert any("nuclei_small" in check["check"] for check in checks)
    apply_classes(str(image), "nuclei", str(done / "classes"), again)
    assert set(open_image(image).labels) == {"nuclei", "nuclei_class"}


def test_a_mask_does_not_replace_labels_of_another_origin(done: Path, tmp_path: Path) -> None:
    image = copy_of(done, tmp_path)
    shutil.rmtree(image / ".sketchscale" / "classify-nuclei")
    create_labels(open_image(image), "nuclei_small", chunks=(64, 64))
    commit_labels(open_image(image), "nuclei_small")
    with pytest.raises(OutputExistsError, match="of another origin"):
        apply_classes(str(image), "nuclei", str(done / "classes"), SERIAL, masks=True)


def test_probabilities_of_every_class_are_columns_and_add_up(done: Path) -> None:
    rows = first_rows(done / "image.zarr")
    assert np.allclose([row["prob_large"] + row["prob_small"] for row in rows], 1)  # type: ignore[operator]
    for row in rows:
        if row["class_source"] == "model":
            assert row["class_prob"] == max(row["prob_large"], row["prob_small"])  # type: ignore[type-var]


def test_an_interrupted_classification_goes_on_to_the_same_bytes(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = copy_of(done, tmp_path)
    wanted = files_of(image / "tables") | files_of(image / "labels")
    again = Execution(engine="serial", block=64, overwrite=True)
    monkeypatch.setattr(classify, "write_table", _no_space)
    with pytest.raises(OutputError):
        apply_classes(str(image), "nuclei", str(done / "classes"), again)
    monkeypatch.undo()
    seen: list[str] = []
    resume = Execution(engine="threads", workers=2, block=64, resume=True)
    apply_classes(str(image), "nuclei", str(done / "classes"), resume, lambda event: seen.append(event.kind))
    assert "skipped" in seen
    assert "done" not in seen
    assert files_of(image / "tables") | files_of(image / "labels") == wanted


def _no_space(*args: object, **kwargs: object) -> None:
    raise OutputError("no space")


@pytest.fixture(scope="module")
def both(done: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Two images and marks on both, by their names."""
    folder = tmp_path_factory.mktemp("both")
    images = (folder / "one.zarr", folder / "two.zarr")
    for image in images:
        shutil.copytree(done / "image.zarr", image, copy_function=shutil.copy2)
    rows = (done / "classes.csv").read_text().splitlines()[1:]
    lines = [f"{image.name},{row}" for image, some in zip(images, (rows[:6], rows[2:]), strict=True) for row in some]
    (folder / "clicks.csv").write_text("\n".join(["image,label,class", *lines]) + "\n")
    return (*images, folder / "clicks.csv")


def test_marks_of_several_images_train_one_classifier_with_a_gallery_of_both(
    both: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    *images, clicks = map(str, both)
    out, page = str(tmp_path / "forest"), tmp_path / "g.html"
    options = ClassifyOptions(kind="random-forest", colors={"small": "#ff3366"})
    result = train_classes(images, "nuclei", clicks, out, options, execution=SERIAL)
    assert (result.n, result.classes, result.side) == (12, ("large", "small"), 0)
    assert result.held_out is not None
    assert (tmp_path / "forest" / "confusion.svg").read_text().startswith("<svg")
    assert "recall" in (tmp_path / "forest" / "summary.txt").read_text()
    again = Execution(engine="serial", block=128, overwrite=True)
    for image in images:
        applied = apply_classes(image, "nuclei", out, again)
        assert applied.cropped == 0
    colors = open_image(images[0]).label_image("nuclei_class")
    assert json.dumps([255, 51, 102, 255]).replace(" ", "") in json.dumps(
        label_attributes(colors), separators=(",", ":")
    )
    assert sum(row["in_training"] is True for row in first_rows(Path(images[0]))) == 6
    write_gallery(images, "nuclei", out, str(page), execution=SERIAL)
    text = page.read_text()
    assert "two.zarr, label" in text
    assert "#ff3366" in text
    assert len(text) < 2_000_000


def label_attributes(labels: Image) -> dict[str, object]:
    return read_attributes(*split_address(labels.address)) or {}


def test_the_gallery_shows_where_the_network_looked_and_a_forest_has_no_such_maps(
    done: Path, both: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    page = write_gallery(
        [str(done / "image.zarr")], "nuclei", str(done / "classes"), str(tmp_path / "g.html"), attention=True
    )
    assert "where the network looked" in Path(page).read_text()
    with pytest.raises(OutputExistsError, match="--overwrite"):
        check_gallery(page, str(done / "classes"), attention=False, overwrite=False)
    with pytest.raises(InputError, match="--attention without --gallery"):
        check_gallery(None, str(done / "classes"), attention=True, overwrite=False)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a command says when it leaves with code 2."""
    assert run(["classify", *map(str, arguments)]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert said[0].startswith("error: ")
    return said[0]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("label,class\n1,a\n2,a\n", "at least two classes"),
        ("label,class\n1,a\n99999,b\n", "no object at label 99999"),
        ("label,class\n1,a\n1.0e400,b\n", "line 3"),
        ("label,class\n1,a\n2,b\n", "a color for 'red'"),
    ],
)
def test_the_command_refuses_annotations_in_one_line(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, message: str
) -> None:
    clicks, out = tmp_path / "c.csv", tmp_path / "out"
    clicks.write_text(table)
    image = done / "image.zarr"
    said = refused(capsys, "train", image, "--annotations", clicks, "--out", out, "--color", "red=#ff0000")
    assert message in said
    assert not out.exists()


@pytest.mark.parametrize(
    "option", ["--side 64", "--depth 3", "--loss mse", "--no-mask", "--context-radius 5", "--batch 8", "--augment none"]
)
def test_options_of_networks_are_refused_by_forests(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    given = ["--annotations", done / "classes.csv", "--out", tmp_path / "out", "--kind", "random-forest"]
    assert "reads the table alone" in refused(capsys, "train", done / "image.zarr", *given, *option.split())


def test_what_svetlana_lets_a_user_choose_reaches_the_training_from_flags_and_from_a_study_file(
    done: Path, tmp_path: Path
) -> None:
    flags = ["--batch", "5", "--weight-decay", "0.25", "--schedule", "step", "--augment", "flips", "--steps", "2"]
    given = ["--annotations", done / "classes.csv", "--out", tmp_path / "chosen", *flags]
    assert run(["classify", "train", str(done / "image.zarr"), *map(str, given)]) == 0
    stored = load_classifier(tmp_path / "chosen").provenance["options"]
    assert (stored["batch"], stored["weight_decay"], stored["schedule"]) == (5, 0.25, "step")
    assert (stored["augment"]["rotate"], stored["augment"]["flip"]) == (0, 0.5)
    study = tmp_path / "study.toml"
    chosen = "batch = 5\nweight_decay = 0.25\nschedule = 'step'\naugment = 'flips'\nsteps = 2\n"
    study.write_text("[study]\nimages = ['i']\n[segment]\nmodel = 'm'\n[classify]\nclassifier = 'c'\n" + chosen)
    options = load_study(study).classify
    marks, out = str(done / "classes.csv"), tmp_path / "study"
    train_classes(str(done / "image.zarr"), "nuclei", marks, str(out), options, execution=SERIAL)
    assert load_classifier(out).sha256 == load_classifier(tmp_path / "chosen").sha256


def test_the_command_refuses_labels_that_do_not_fit_in_one_line(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = store_image(tmp_path / "two.zarr", np.stack([draw_nuclei((130, 200))] * 2))
    levels = create_labels(open_image(other), "nuclei", chunks=(64, 64))
    write_box(levels[0], whole((130, 200)), pixels_of(done / "image.zarr", "nuclei"))
    commit_labels(open_image(other), "nuclei")
    classifier = ["--classifier", str(done / "classes"), "--engine", "serial"]
    assert "image channels c0, c1" in refused(capsys, "apply", other, *classifier)
    image = copy_of(done, tmp_path)
    options = [*classifier, "--overwrite", "--block", "128"]
    table = read_table(image, "nuclei")
    write_table(image, "nuclei", table.drop_columns(["box_y_start"]), region="nuclei")
    assert "without box_y_start" in refused(capsys, "apply", image, *options)
    (image / "tables" / "zarr.json").unlink()
    assert "sketchscale measure" in refused(capsys, "apply", image, *options)


def test_objects_larger_than_the_patch_are_a_warning_with_their_number(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, out = copy_of(done, tmp_path), tmp_path / "narrow"
    clicks = ["--annotations", done / "classes.csv", "--out", out, "--side", 4, "--steps", 2]
    assert run(["classify", "train", *map(str, [image, *clicks])]) == 0
    options = ["--classifier", out, "--overwrite", "--engine", "serial", "--block", 128]
    assert run(["classify", "apply", *map(str, [image, *options])]) == 0
    n = sum(bool(row["patch_cropped"]) for row in first_rows(image))
    assert n > 0
    assert f"{n} of {read_table(image, 'nuclei').num_rows} objects are larger than the patch of 4 px" in " ".join(
        capsys.readouterr().err.split()
    )
