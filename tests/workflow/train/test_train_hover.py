"""The commands `train --loss hover` and `segment` with what it made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sketchscale.cli import run
from sketchscale.networks.checkpoint import load_model
from tests.workflow.segment.test_segment import stored
from tests.workflow.train.test_train import image_and_sketch

SMALL = ["--steps", "4", "--batch", "2", "--patch", "32", "--threads", "1", "--preview-every", "2", "--json"]


def test_the_commands_go_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, sketch = image_and_sketch(tmp_path)
    out = str(tmp_path / "model")
    command = ["train", image, "--sketch", sketch, "--out", out, "--loss", "hover", "--width", "4", *SMALL]
    assert run(command) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["threshold"] == 0.5
    assert "threshold 0.5, objects" in said["summary"]
    assert load_model(out).config.target == "hover"
    assert (tmp_path / "model" / "run" / "preview_000004.png").is_file()
    assert run(["segment", image, "--model", out, "--threshold", "0.4", "--engine", "serial"]) == 0
    labels = stored(image)
    assert labels.max() == np.unique(labels[labels > 0]).size


def test_it_starts_from_the_shipped_model_and_says_what_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, sketch = image_and_sketch(tmp_path)
    out = str(tmp_path / "model")
    assert (
        run(["train", image, "--sketch", sketch, "--out", out, "--loss", "hover", "--init", "nuclei-fluo", *SMALL]) == 0
    )
    assert "the outputs, hover, start from random weights" in capsys.readouterr().err
    assert load_model(out).config.target == "hover"
