"""What earlier versions wrote is read: models, classifiers, sketches, results with their ledgers, trainings, studies.

Each folder of `fixtures` holds the files of one version, and `make.py`, which wrote them then. An image is known by the
times of its files, too, which git does not keep: copies get those that they had.
"""

from __future__ import annotations

import json
import os
import shutil
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sketchscale.annotations.centres import read_centres
from sketchscale.cli import run
from sketchscale.config import load_study
from sketchscale.errors import UnknownNameError
from sketchscale.geometry import whole
from sketchscale.io.ome_zarr.arrays import read_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.table import read_table
from tests.workflow.finished import files_of

OLD = Path(__file__).parent / "fixtures" / "0.1"
TIME = 1_700_000_000
SERIAL = ("--precision", "float32", "--engine", "serial", "--block", "32")
SEGMENT = {
    "plane.zarr": ("--model", "model-2d", "--max-size", "200"),
    "volume.zarr": ("--volume", "--model", "model-3d"),
}
images = pytest.mark.parametrize("image", SEGMENT)


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all files, and the working directory."""
    folder = tmp_path / "0.1"
    shutil.copytree(OLD, folder)
    for path in folder.rglob("*"):
        os.utime(path, (TIME, TIME))
    monkeypatch.chdir(folder)
    return folder


def output(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """What a command prints as JSON; it has to end with 0."""
    assert run([*words, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def labels_of(image: Path, name: str = "nuclei") -> npt.NDArray[Any]:
    labels = open_image(str(image)).label_image(name)
    return read_box(labels.array(0), whole(labels.shapes[0]))


def results_of(image: Path) -> dict[str, bytes]:
    """Every file but the notes of who ran, which each run adds."""
    return {name: data for name, data in files_of(image).items() if "/owner/" not in name}


@images
def test_results_verify_and_runs_are_committed(old: Path, image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert {record["state"] for record in output(capsys, "status", image)} == {"committed"}
    checks = output(capsys, "verify", image)
    assert len(checks) > 8
    assert all(check["ok"] for check in checks)


def test_a_copied_plane_with_other_times_verifies(old: Path, tmp_path: Path) -> None:
    shutil.copytree(old / "plane.zarr", tmp_path / "copy.zarr", copy_function=shutil.copyfile)
    assert run(["verify", str(tmp_path / "copy.zarr")]) == 0


@images
def test_a_finished_run_under_the_old_rule_of_joining_is_not_resumed_and_unchanged(
    old: Path, image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = results_of(old / image)
    assert run(["segment", image, *SEGMENT[image], *SERIAL, "--resume"]) == 2
    assert "saddle" in capsys.readouterr().err
    assert results_of(old / image) == before


@images
def test_the_models_find_the_stored_foreground(old: Path, image: str) -> None:
    """The fields and the threshold are those of 0.1; which fragments are joined follows another rule now."""
    stored = labels_of(old / image)
    assert run(["segment", image, "--labels", "again", *SEGMENT[image], *SERIAL]) == 0
    assert ((labels_of(old / image, "again") > 0) == (stored > 0)).mean() > 0.99


@images
def test_measuring_gives_the_stored_table(old: Path, image: str) -> None:
    stored, table = labels_of(old / image), read_table(image, "nuclei")
    assert run(["measure", image, "--labels", "nuclei", "--engine", "serial", "--overwrite"]) == 0
    again = read_table(image, "nuclei")
    measured = [name for name in table.column_names if name in again.column_names]
    classified = ("class", "prob_", "in_training", "patch_cropped")
    assert all(name.startswith(classified) for name in table.column_names if name not in measured)
    assert table.num_rows == stored.max() == again.num_rows > 8
    for name in measured:
        found, expected = (np.array(t.column(name).to_pylist(), float) for t in (again, table))
        np.testing.assert_allclose(found, expected, rtol=1e-12, err_msg=name)


def test_the_classifier_gives_the_stored_classes(old: Path) -> None:
    stored, table = labels_of(old / "plane.zarr", "nuclei_class"), read_table("plane.zarr", "nuclei")
    assert run(["classify", "apply", "plane.zarr", "--classifier", "classes", *SERIAL, "--overwrite"]) == 0
    np.testing.assert_array_equal(labels_of(old / "plane.zarr", "nuclei_class"), stored)
    assert read_table("plane.zarr", "nuclei").column("class").equals(table.column("class"))


def test_sketches_are_understood_alike(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for sketch in ("strokes.jsonl", "strokes.geojson"):
        shown = output(capsys, "sketch", "show", sketch, "--image", "plane.zarr")
        assert shown["objects"] == 7
        assert shown["pixels"] == {"background": 3322, "foreground": 2033, "boundary": 464}
    assert output(capsys, "sketch", "show", "painted.npy", "--image", "plane.zarr")["objects"] == 11
    assert len(read_centres("centres.csv", (96, 120))) == 11


def test_a_finished_training_resumed_says_so_and_keeps_the_weights(old: Path) -> None:
    before = (old / "trained/model.safetensors").read_bytes()
    train = ["train", "plane.zarr", "--sketch", "strokes.jsonl", "--out", "trained", "--steps", "4", "--batch", "1"]
    options = ["--patch", "32", "--preview-every", "0", "--threads", "1", "--precision", "float32"]
    assert run([*train, *options, "--init", "trained", "--resume"]) == 0
    assert (old / "trained/model.safetensors").read_bytes() == before


def test_every_option_of_a_study_is_read_or_refused_with_what_takes_its_place(old: Path) -> None:
    text = (old / "study.toml").read_text()
    with pytest.raises(UnknownNameError, match=r"'saddle'; it was replaced by prominence"):
        load_study(old / "study.toml")
    (old / "study.toml").write_text(text.replace("saddle = 0.8", "prominence = -0.5"))
    document = tomllib.loads((old / "study.toml").read_text())
    study = json.loads(json.dumps(asdict(load_study(old / "study.toml"))))
    for section, options in document.items():
        assert {key: study[section][key] for key in options} == options, section
