"""The command `convert`: what it assumes is said on stderr and stands in its result."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from sketchscale.cli import run
from sketchscale.io.ome_zarr.image import open_image


def test_notes_are_said_before_and_stand_in_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 20, 30), np.uint8), metadata=None, photometric="minisblack")
    source, target = str(tmp_path / "a.tif"), str(tmp_path / "a.zarr")
    assert run(["convert", source, target, "--dry-run"]) == 0
    dry = [line for line in capsys.readouterr().err.splitlines() if line.startswith("a.tif: ")]
    assert run(["convert", source, target, "--json"]) == 0
    shown = capsys.readouterr()
    said = [line for line in shown.err.splitlines() if line.startswith("a.tif: ")]
    assert len(said) == 2
    assert dry == said
    (record,) = json.loads(shown.out)
    assert [f"a.tif: {note}" for note in record["notes"]] == said
    assert (record["axes"], record["spacing_um"]) == ("czyx", {})


def test_options_answer_the_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 20, 30), np.uint8), metadata=None, photometric="minisblack")
    options = ["--axes", "zyx", "--spacing", "0.5", "--z-spacing", "2", "--json"]
    assert run(["convert", str(tmp_path / "a.tif"), str(tmp_path / "a.zarr"), *options]) == 0
    shown = capsys.readouterr()
    assert "a.tif: " not in shown.err
    (record,) = json.loads(shown.out)
    assert (record["notes"], record["spacing_um"]) == ([], {"z": 2.0, "y": 0.5, "x": 0.5})
    assert open_image(tmp_path / "a.zarr").volume().spacing == (2.0, 0.5, 0.5)


def test_a_refused_option_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 30), np.uint8))
    for options in (["--spacing", "0"], ["--spacing", "0.5", "--z-spacing", "2"], ["--axes", "cyx"]):
        assert run(["convert", str(tmp_path / "a.tif"), str(tmp_path / "a.zarr"), *options]) == 2
        assert len([line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]) == 1
    assert not (tmp_path / "a.zarr").exists()
