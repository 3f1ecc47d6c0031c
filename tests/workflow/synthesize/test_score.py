"""`synthesize score` through files and the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from sketchscale.cli import run
from sketchscale.config import Execution
from sketchscale.errors import InputError, OutputExistsError
from sketchscale.synthesis.contrast import order_kept
from sketchscale.workflow.synthesize.score import ScoreOptions, score_synthesis
from tests.synthesis.tiny import stored_synthesis
from tests.workflow.synthesize.test_train import image_and_points

SERIAL = Execution(engine="serial")


def options(folder: Path, channels: int = 1) -> ScoreOptions:
    pairs = [image_and_points(folder, seed) for seed in (0, 1)]
    return ScoreOptions(
        synthesis=stored_synthesis(folder / "synthesis", channels),
        images=tuple(image for image, _ in pairs),
        points=tuple(points for _, points in pairs),
        crops=8,
        crop=64,
    )


def test_a_score_says_everything_and_is_the_same_again(tmp_path: Path) -> None:
    asked = options(tmp_path)
    score = score_synthesis(asked, SERIAL)
    assert score.fidelity.crops == 4
    assert score.fidelity.texture.features == 240
    assert [order.sign for order in score.real] == [1]
    assert score.consistency.painted > 0
    assert score_synthesis(asked, replace(SERIAL, engine="threads", workers=2)) == score
    for word in ("floor", "nuclei-fluo", "noise is ignored", "AJI", "channel 0: real", "brighter"):
        assert word in score.text


def test_the_command_writes_figures_and_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = options(tmp_path)
    out, picture = tmp_path / "score.json", tmp_path / "score.png"
    arguments = ["synthesize", "score", asked.synthesis, *asked.images, "--crops", "8", "--crop", "64"]
    arguments += [part for path in asked.points for part in ("--points", path)]
    assert run([*arguments, "--out", str(out), "--picture", str(picture), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text())
    assert printed["real"][0]["sign"] == 1
    with Image.open(picture) as sheet:
        assert sheet.size == (8 + 4 * (128 + 8), 8 + 5 * (128 + 8 + 32))
    assert run([*arguments, "--out", str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(arguments) == 0
    assert "order of objects and background" in capsys.readouterr().out


def test_images_of_other_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"1 channels; expected: 3, as .*--channel"):
        score_synthesis(options(tmp_path, channels=3), SERIAL)


def test_images_smaller_than_a_crop_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"image[01]\.zarr is 140 x 150 px; expected: at least 160 px"):
        score_synthesis(replace(options(tmp_path), crop=160), SERIAL)


def test_an_inverted_channel_is_named(tmp_path: Path) -> None:
    score = score_synthesis(options(tmp_path), SERIAL)
    bright = score.real[0]
    dark = replace(bright, objects=bright.background, background=bright.objects)
    said = replace(
        score, real=(bright, bright), made=(bright, dark), order_kept=order_kept([bright] * 2, [bright, dark])
    )
    assert "is NOT kept: inverted in channel 1" in said.text
    assert "is kept" in replace(score, made=(bright,), order_kept=True).text


@pytest.mark.parametrize(("crops", "crop"), [(7, 64), (8, 0), (8, 32), (8, 80)])
def test_options_out_of_range_are_refused(crops: int, crop: int) -> None:
    with pytest.raises(InputError, match="crops 7; " if crops == 7 else f"crop {crop}; "):
        ScoreOptions(synthesis="a", images=("b",), points=("c",), crops=crops, crop=crop)


def test_nothing_is_computed_before_an_output_that_is_there(tmp_path: Path) -> None:
    there = tmp_path / "score.png"
    there.write_text("mine")
    asked = ScoreOptions(synthesis="nowhere", images=("a",), points=("b",), picture=str(there))
    with pytest.raises(OutputExistsError, match="another --picture"):
        score_synthesis(asked, SERIAL)
    assert there.read_text() == "mine"
