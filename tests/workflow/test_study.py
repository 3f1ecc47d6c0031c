"""A study file: every step, resumable, and one image that fails does not stop the others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sketchscale.cli import run
from sketchscale.config import load_study
from sketchscale.errors import InputError, MissingDataError
from sketchscale.workflow.images import expand
from sketchscale.workflow.study import plan_study, run_study
from tests.pipeline import draw_nuclei, store_image
from tests.workflow.finished import files_of

STUDY = """
[study]
name = "two images"
images = ["images/*.zarr"]

[segment]
model = "{model}"
max_size = 80

[classify]
classifier = "classes"

[execution]
engine = "serial"
block = 128
"""


@pytest.fixture
def study(tmp_path: Path, model: str, done: Path) -> str:
    """Two images of which the second is constant, a classifier, and the file."""
    store_image(tmp_path / "images/a.zarr", draw_nuclei((130, 200)))
    store_image(tmp_path / "images/b.zarr", np.full((70, 70), 9, np.uint8))
    shutil.copytree(done / "classes", tmp_path / "classes")
    path = tmp_path / "study.toml"
    path.write_text(STUDY.format(model=model))
    return str(path)


def results_of(folder: Path) -> dict[str, bytes]:
    """Every file but the note of who ran it, which each run adds."""
    return {name: data for name, data in files_of(folder).items() if "/owner/" not in name}


def test_a_study_runs_resumes_and_lists_what_failed(
    study: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    result = run_study(load_study(study), study, say=said.append)
    bad = str(tmp_path / "images/b.zarr")
    assert result["failed"] == [bad]
    assert any(line.startswith(f"error: {bad}: ") and "constant" in line for line in said)
    assert {row["class"] for row in result["counts"]} == {"large", "small"}
    assert "two images" in Path(result["report"]).read_text("utf-8")
    assert not list(Path(bad).rglob(".sketchscale/*/*"))
    before = results_of(tmp_path / "images")
    assert run(["run", study, "--resume", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["counts"] == result["counts"]
    assert results_of(tmp_path / "images") == before


def test_when_every_image_fails_the_study_fails(study: str, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "images/a.zarr")
    with pytest.raises(InputError, match="constant"):
        run_study(load_study(study), study)
    assert not (tmp_path / "report.html").exists()


def test_the_plan_of_a_study_writes_nothing(study: str, tmp_path: Path) -> None:
    before = files_of(tmp_path)
    lines = plan_study(load_study(study), study)
    assert [line.stage for line in lines[:2]] == ["histogram", "predict"]
    assert len(lines) == 10
    assert files_of(tmp_path) == before


def test_a_pattern_without_images_and_no_image_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="matches nothing"):
        expand([str(tmp_path / "*.zarr")])
    with pytest.raises(InputError, match="at least one"):
        expand([])


def test_an_image_named_twice_is_done_once(study: str, tmp_path: Path) -> None:
    one = str(tmp_path / "images/a.zarr")
    assert expand([one, str(tmp_path / "images/a*"), one]) == [one]
