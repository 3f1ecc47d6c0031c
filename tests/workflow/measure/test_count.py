"""Counts by class, image and well; corrected counts from a file of judged objects, and files that are no sample."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from sketchscale.cli import run
from sketchscale.errors import InputError, MissingDataError
from sketchscale.io.ome_zarr.groups import write_attributes
from sketchscale.io.ome_zarr.table import read_table, write_table
from sketchscale.workflow.measure.count import count, parse_by
from tests.workflow.classify.test_propose import stored


def plate(folder: Path) -> str:
    """Wells A01 with two fields, B11 with one, and C02 without."""
    address = folder / "p.zarr"
    wells = {"A/1": 2, "B/11": 1}
    for path, n in wells.items():
        for field in range(n):
            stored(address / path, str(field), 10 + field, seed=field)
        fields = [{"path": str(field)} for field in range(n)]
        write_attributes(str(address / path), "", {"ome": {"version": "0.5", "well": {"images": fields}}}, "0.5")
    described = {
        "rows": [{"name": n} for n in "ABC"],
        "columns": [{"name": n} for n in ("1", "2", "11")],
        "wells": [
            {"path": "B/11", "rowIndex": 1, "columnIndex": 2},
            {"path": "A/1", "rowIndex": 0, "columnIndex": 0},
            {"path": "C/2", "rowIndex": 2, "columnIndex": 1},
        ],
    }
    write_attributes(str(address), "", {"ome": {"version": "0.5", "plate": described}}, "0.5")
    return str(address)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("count")
    return [stored(folder, "one.zarr", 60), stored(folder, "two.zarr", 25, seed=1)]


def test_wells_have_their_row_even_when_nothing_is_there(tmp_path: Path) -> None:
    address = plate(tmp_path)
    rows = count(address, by=["well"])
    assert [(r["well"], r["n"]) for r in rows] == [("A01", 21), ("B11", 10), ("C02", 0)]
    assert {r["plate"] for r in rows} == {address}
    split = count(address, by=["well", "class"])
    assert [(r["well"], r["class"]) for r in split] == [
        (w, c) for w in ("A01", "B11", "C02") for c in ("long", "round")
    ]
    assert sum(r["n"] for r in split) == 31
    assert [r["n"] for r in count(address, by=[])] == [31]
    assert [r["n"] for r in count([f"{address}/A/1/1"], by=["well"])] == [11]
    assert len(count(address)) == 3 * 2


def test_the_sum_is_that_of_the_tables(study: list[str]) -> None:
    rows = count(study, by=["class"])
    classes = [name for image in study for name in read_table(image, "nuclei").column("class").to_pylist()]
    assert {r["class"]: r["n"] for r in rows} == {"long": classes.count("long"), "round": classes.count("round")}


def test_what_rows_can_be_split_by() -> None:
    assert parse_by(["class", "image,well"]) == ("image", "well", "class")
    for wrong in (["klass"], ["none,class"]):
        with pytest.raises(InputError, match="class, well and image, or none"):
            parse_by(wrong)


def test_the_command_prints_and_writes(study: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "counts.csv"
    assert run(["count", *study, "--by", "class", "--csv", str(out)]) == 0
    printed = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    with out.open(newline="") as file:
        assert [[r["class"], r["n"]] for r in csv.DictReader(file)] == printed
    assert run(["count", *study, "--csv", str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err


# ---- corrected counts


def judged(study: list[str], path: Path, n: int = 30, wrong: int = 3, by: str = "random", **changed: str) -> Path:
    """Proposals that a person judged: as predicted, but the first `wrong` as the other class; one is unsure."""
    proposals = path.with_name("p.csv")
    command = ["classify", "propose", *study, "--n", str(n), "--by", by, "--out", str(proposals), "--overwrite"]
    assert run(command) == 0
    names = {Path(image).name: read_table(image, "nuclei").to_pylist() for image in study}
    with proposals.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        guess = names[row["image"]][int(row["label"]) - 1]["class"]
        row["class"] = {"round": "long", "long": "round"}[guess] if i < wrong else guess
        row |= changed
    rows[-1]["class"] = changed.get("class", "unsure")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_judged_objects_correct_the_counts(
    study: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = judged(study, tmp_path / "judged.csv")
    capsys.readouterr()
    assert run(["count", *study, "--by", "class", "--review", str(path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    rows = {row["class"]: row for row in result["counts"]}
    assert list(rows) == ["long", "round", "none", "all but none"]
    assert sum(rows[name]["estimate"] for name in ("long", "round", "none")) == pytest.approx(85, abs=0.2)
    assert rows["all but none"]["estimate"] == pytest.approx(85 - rows["none"]["estimate"], abs=0.2)
    assert result["review"]["judged"] == 30
    assert (result["review"]["population"], result["review"]["annotated"]) == (75, 10)
    assert sum(n for _, _, n in result["review"]["confusion"]) == 30
    assert sum(n for guess, name, n in result["review"]["confusion"] if guess != name) == 4
    assert all(row["low"] <= row["estimate"] <= row["high"] for row in rows.values())
    assert run(["count", *study, "--review", str(path)]) == 0
    text = capsys.readouterr().out
    assert "30 judged of 75 objects (10 annotated ones are known)" in text
    assert "accuracy" in text


def test_an_image_without_objects_counts_as_none_and_does_not_stop_a_review(study: list[str], tmp_path: Path) -> None:
    nothing = stored(tmp_path, "nothing.zarr", 10)
    write_table(nothing, "nuclei", read_table(nothing, "nuclei").slice(0, 0), region="nuclei")
    rows = count([study[0], nothing])
    assert [(r["class"], r["n"]) for r in rows if r["image"] == nothing] == [("long", 0), ("round", 0)]
    path = judged(study, tmp_path / "judged.csv")
    assert run(["count", *study, nothing, "--review", str(path)]) == 0


def test_stopping_early_is_fine_and_passing_over_is_said(
    study: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = judged(study, tmp_path / "judged.csv")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:20]))
    assert run(["count", *study, "--review", str(path)]) == 0
    assert "passed over" not in capsys.readouterr().out
    path.write_text("".join(lines[:5] + lines[8:20]))
    assert run(["count", *study, "--review", str(path)]) == 0
    assert "3 proposals were passed over" in capsys.readouterr().out


def test_part_of_the_images_is_counted_from_its_part_of_the_sample(
    study: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = judged(study, tmp_path / "judged.csv")
    assert run(["count", study[0], "--review", str(path)]) == 0
    assert "rows of images that were not counted are left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"by": "uncertainty"}, "line 2: an object chosen by uncertainty; expected: objects drawn at random"),
        ({"by": "diversity"}, "an object chosen by diversity"),
        ({"y": "1.25"}, "expected: y 1.25, x "),
        ({"label": "2", "y": "", "x": "", "class": "round"}, ": object 2 was an example in training"),
        ({"label": "999"}, ": no object at label 999"),
        ({"drawn_from": "60"}, "objects drawn from 60, counts of 75"),
        ({"image": "three.zarr"}, "line 2: unknown image 'three.zarr'"),
        ({"class": ""}, "line 2: no class"),
    ],
)
def test_a_file_that_is_no_sample_of_these_objects_is_refused(
    study: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, str], words: str
) -> None:
    path = judged(study, tmp_path / "judged.csv", **changed)
    capsys.readouterr()
    assert run(["count", *study, "--review", str(path)]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert words in err


def test_a_sample_corrects_classes_only(study: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = judged(study, tmp_path / "judged.csv")
    capsys.readouterr()
    assert run(["count", *study, "--review", str(path), "--by", "class,image"]) == 2
    assert "expected: --by class" in capsys.readouterr().err
    assert run(["count", *study, "--review", str(path), "--on-conflict", "both"]) == 2
    assert "known: last, refuse" in capsys.readouterr().err


def test_objects_have_to_be_classified_and_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = stored(tmp_path, "plain.zarr", 8, classified=False)
    (tmp_path / "j.csv").write_text("label,class\n1,a\n2,b\n")
    assert run(["count", image, "--review", str(tmp_path / "j.csv")]) == 2
    assert "run classify apply first" in capsys.readouterr().err
    with pytest.raises(MissingDataError, match="sketchscale measure"):
        count(image, "cells")


def test_points_and_rows_in_another_order_give_the_same_corrected_counts(study: list[str], tmp_path: Path) -> None:
    """Points instead of labels, so that the file does not name the numbers."""
    path = judged(study, tmp_path / "judged.csv", label="")
    expected = tmp_path / "a.csv"
    assert run(["count", *study, "--review", str(path), "--csv", str(expected)]) == 0
    renamed = stored(tmp_path, "one.zarr", 60)
    table = read_table(renamed, "nuclei")
    assert run(["count", renamed, study[1], "--review", str(path), "--csv", str(tmp_path / "b.csv")]) == 0
    assert (tmp_path / "b.csv").read_bytes() == expected.read_bytes()
    write_table(renamed, "nuclei", table.take(list(range(59, -1, -1))), region="nuclei")
    assert run(["count", renamed, study[1], "--review", str(path), "--csv", str(tmp_path / "c.csv")]) == 0
    assert (tmp_path / "c.csv").read_bytes() == expected.read_bytes()
