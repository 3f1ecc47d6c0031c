"""Proposals of stored images, their file and page, and the way of that file back into training and counting."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow
import pytest

from sketchscale.cli import run
from sketchscale.errors import InputError, MissingDataError
from sketchscale.geometry import whole
from sketchscale.io.ome_zarr.arrays import write_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.new_images import commit_labels, create_labels
from sketchscale.io.ome_zarr.table import write_table
from sketchscale.objects.annotation.examples import assign_marks, read_marks, resolve_marks
from sketchscale.workflow.classify.propose import COLUMNS, ProposeOptions, image_names, propose
from tests.pipeline import store_image
from tests.workflow.segment.test_segment_in_space import store_volume


def stored(folder: Path, name: str, n: int, *, classified: bool = True, seed: int = 0) -> str:
    """An image with n squares of 4 px in rows of ten, and their table."""
    rng = np.random.default_rng(seed)
    rows = -(-n // 10)
    labels = np.zeros((12 * rows, 120), np.uint32)
    y, x = np.arange(n) // 10 * 12 + 3, np.arange(n) % 10 * 12 + 3
    for k in range(n):
        labels[y[k] : y[k] + 4, x[k] : x[k] + 4] = k + 1
    image = store_image(folder / name, (labels > 0).astype(np.uint8) * 200)
    levels = create_labels(open_image(image), "nuclei", chunks=(64, 64))
    write_box(levels[0], whole(labels.shape), labels)
    commit_labels(open_image(image), "nuclei")
    p = rng.random(n)
    columns = {"label": np.arange(1, n + 1), "y": y + 1.5, "x": x + 1.5, "area": np.full(n, 16), "mean": rng.random(n)}
    columns |= {"box_y_start": y, "box_x_start": x, "box_y_stop": y + 4, "box_x_stop": x + 4}
    if classified:
        columns |= {"class": np.where(p > 0.3, "round", "long"), "class_prob": np.maximum(p, 1 - p)}
        columns |= {"prob_long": 1 - p, "prob_round": p, "in_training": np.arange(n) < 5}
    write_table(image, "nuclei", pyarrow.table(columns), region="nuclei")
    return image


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("propose")
    return [stored(folder, "one.zarr", 60), stored(folder, "two.zarr", 25, seed=1)]


def rows_in(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_file_is_ready_to_be_filled_in_and_comes_back_as_examples(images: list[str], tmp_path: Path) -> None:
    out = tmp_path / "judge.csv"
    assert run(["classify", "propose", *images, "--n", "20", "--out", str(out)]) == 0
    rows = rows_in(out)
    assert tuple(rows[0]) == COLUMNS
    assert [row["rank"] for row in rows] == [str(i + 1) for i in range(20)]
    assert {row["class"] for row in rows} == {""}
    assert {(row["reason"], row["drawn_from"]) for row in rows} == {("random", "75")}
    for i, row in enumerate(rows):
        row["class"] = "ab"[i % 2]
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    assigned = assign_marks(read_marks(out), images)
    found = [
        resolve_marks(assigned.of[address], open_image(address).label_ref("nuclei"), np.arange(1, 61), least=0)
        for address in images
    ]
    assert sum(map(len, found)) == 20
    assert all(found)


@pytest.mark.parametrize("by", ["random", "uncertainty", "diversity", "both"])
def test_proposals_are_no_annotated_objects_and_do_not_depend_on_the_order_of_images(
    images: list[str], by: str
) -> None:
    options = ProposeOptions(n=12, by=by, seed=4)
    result = propose(images, "nuclei", options)
    assert (len(result.proposals), result.drawn_from, result.annotated) == (12, 75, 10)
    assert min(one.label for one in result.proposals) > 5
    turned = propose(images[::-1], "nuclei", options)
    assert [(p.image, p.label) for p in turned.proposals] == [(p.image, p.label) for p in result.proposals]
    assert len({(p.image, p.label) for p in result.proposals}) == 12


def test_a_moved_study_draws_the_same_objects(tmp_path: Path, images: list[str]) -> None:
    moved = stored(tmp_path, "one.zarr", 60)
    options = ProposeOptions(n=9)
    assert [p.label for p in propose([moved], "nuclei", options).proposals] == [
        p.label for p in propose(images[:1], "nuclei", options).proposals
    ]


def test_names_are_short_where_they_are_unique() -> None:
    assert image_names(["/a/p.zarr/B/3/0", "/a/p.zarr/B/4/0"]) == ["p.zarr/B/3/0", "p.zarr/B/4/0"]
    assert image_names(["/a/i.zarr", "/b/i.zarr", "/b/j"]) == ["/a/i.zarr", "/b/i.zarr", "j"]


def test_the_page_shows_every_proposal_and_no_predicted_class_unless_asked(images: list[str], tmp_path: Path) -> None:
    common = ["classify", "propose", *images, "--n", "6", "--out", str(tmp_path / "a.csv"), "--overwrite", "--page"]
    assert run([*common, str(tmp_path / "blind.html"), "--color", "odd=#123456"]) == 0
    blind = (tmp_path / "blind.html").read_text("utf-8")
    rows = rows_in(tmp_path / "a.csv")
    for row in rows:
        assert f'{row["image"]}, y {float(row["y"]):.0f}, x {float(row["x"]):.0f}"' in blind
    assert '{"name":"odd","color":"#123456"}' in blind
    assert '{"name":"round","color":"' in blind
    assert run([*common, str(tmp_path / "open.html"), "--show-class"]) == 0
    shown = (tmp_path / "open.html").read_text("utf-8")
    assert shown.count(" \\u00b7 round") + shown.count(" \\u00b7 long") == 6
    assert " \\u00b7 round" not in blind


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--by", "randm"), "did you mean 'random'"),
        (("--page", "p.html", "--color", "red"), "--color NAME=VALUE"),
        (("--page", "p.html", "--color", "a=red"), "a colour such as"),
        (("--page", "p.html", "--classifier", "none.clf"), "none.clf"),
        (("--labels", "cells"), "sketchscale measure"),
        (("--out", "old.csv"), "--overwrite"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    images: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...], words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("old.csv").write_text("mine")
    out = () if "--out" in arguments else ("--out", "new.csv")
    assert run(["classify", "propose", images[0], *out, *arguments]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert words in errors[0]
    assert [p.name for p in tmp_path.iterdir()] == ["old.csv"]


def test_uncertainty_needs_classes_and_something_must_be_left(tmp_path: Path) -> None:
    image = stored(tmp_path, "plain.zarr", 8, classified=False)
    with pytest.raises(InputError, match="run classify apply first"):
        propose([image], "nuclei", ProposeOptions(by="uncertainty"))
    assert len(propose([image], "nuclei", ProposeOptions(by="diversity")).proposals) == 8
    known = stored(tmp_path, "known.zarr", 5)
    with pytest.raises(InputError, match="no object to propose, 5 annotated"):
        propose([known])
    with pytest.raises(MissingDataError, match="sketchscale measure"):
        propose([image], "cells")
    with pytest.raises(InputError, match="--n"):
        ProposeOptions(n=0)


def test_objects_of_volumes_have_a_depth_and_their_section_as_picture(tmp_path: Path) -> None:
    labels = np.zeros((6, 40, 40), np.uint32)
    labels[1:3, 4:10, 4:10], labels[3:6, 20:28, 22:30], labels[0:2, 30:34, 5:9] = 3, 5, 8
    image = store_volume(tmp_path / "v.zarr", (labels > 0).astype(np.uint8) * 200)
    levels = create_labels(open_image(image), "nuclei", chunks=(8, 32, 32))
    write_box(levels[0], whole(labels.shape), labels)
    commit_labels(open_image(image), "nuclei")
    assert run(["measure", image, "--engine", "serial"]) == 0
    out, page = tmp_path / "v.csv", tmp_path / "v.html"
    assert run(["classify", "propose", image, "--n", "3", "--out", str(out), "--page", str(page)]) == 0
    rows = rows_in(out)
    assert {(row["label"], row["z"], row["y"], row["x"]) for row in rows} == {
        ("3", "1.50", "6.50", "6.50"),
        ("5", "4.00", "23.50", "25.50"),
        ("8", "0.50", "31.50", "6.50"),
    }
    html = page.read_text("utf-8")
    assert '"columns":["image","label","z","y","x","class","reason","rank","drawn_from"]' in html
    assert "v.zarr, z 4, y 24, x 26" in html
