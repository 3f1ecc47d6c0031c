"""The learning curve and the strokes of a model land in the report of what it found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sketchscale.errors import MissingDataError
from sketchscale.workflow.report.report import write_report
from tests.workflow.finished import copy_of

ANNOTATED = {
    "image": "", "shape": [100, 200], "events": {"stroke": 3}, "objects": 7, "has_boundary_information": True,
    "pixels": {"background": 1500, "foreground": 450, "boundary": 50},
}  # fmt: skip


def model_folder(folder: Path) -> Path:
    curve = {"loss": [[step, 5.0 / step] for step in range(1, 60)], "score": [[25, -0.5], [50, -0.4]]}
    provenance = {"curve": curve, "steps": 59, "ended_by": "no better validation", "annotated": [ANNOTATED]}
    folder.mkdir()
    (folder / "provenance.json").write_text(json.dumps(provenance))
    return folder


def test_curve_and_strokes_are_in_the_report(tmp_path: Path, done: Path) -> None:
    image = copy_of(done, tmp_path)
    out = write_report([str(image)], "nuclei", str(tmp_path / "a.html"), model=str(model_folder(tmp_path / "m")))
    page = Path(out).read_text("utf-8")
    for words in ("loss by step", "held out", "no better validation", "What was drawn, on 1 image", "1,500", "10 %"):
        assert words in page
    plain = Path(write_report([str(image)], "nuclei", str(tmp_path / "b.html"))).read_text("utf-8")
    assert "loss by step" not in plain


def test_the_model_that_made_the_labels_is_found_by_name_and_hash_in_the_working_directory(
    tmp_path: Path, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = copy_of(done, tmp_path)
    monkeypatch.chdir(tmp_path)
    attributes = json.loads((image / "labels" / "nuclei" / "zarr.json").read_text())["attributes"]
    used = attributes["sketchscale"]["model"]
    folder = model_folder(tmp_path / used["name"])
    (folder / "config.json").write_text(json.dumps({"sha256": used["sha256"]}))
    assert "loss by step" in Path(write_report([str(image)], "nuclei", "a.html")).read_text("utf-8")
    (folder / "config.json").write_text(json.dumps({"sha256": "another"}))
    assert "loss by step" not in Path(write_report([str(image)], "nuclei", "b.html")).read_text("utf-8")


def test_a_named_model_that_is_not_there_is_an_error(tmp_path: Path, done: Path) -> None:
    image = copy_of(done, tmp_path)
    with pytest.raises(MissingDataError, match=r"provenance\.json does not exist"):
        write_report([str(image)], "nuclei", str(tmp_path / "a.html"), model=str(tmp_path / "none"))
