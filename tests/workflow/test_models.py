"""Models as users handle them: list, show, import, export, and files of other programs straight into `segment`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sketchscale.cli import run
from sketchscale.config import SegmentOptions
from sketchscale.errors import InputError, MissingDataError
from sketchscale.integration.plan import integrate
from sketchscale.networks.checkpoint import load_model
from sketchscale.workflow.models import UNKNOWN_LICENCE, list_models, show_model
from sketchscale.workflow.segment.arrays import fields_of_array, open_view, segment_array
from sketchscale.workflow.segment.job import integration_config
from tests.oracles.cpnet import forward, random_state
from tests.pipeline import draw_nuclei, make_model, store_image


@pytest.fixture
def cellpose(tmp_path: Path) -> Path:
    """A file as Cellpose 3 saves it: two channels, three small levels, random weights."""
    torch.save(random_state(), tmp_path / "cyto_random")
    return tmp_path / "cyto_random"


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    capsys.readouterr()
    assert run([*map(str, arguments), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert run([*map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def cellpose_fields(pixels: np.ndarray[Any, Any], weights: Path) -> np.ndarray[Any, Any]:
    """What the described network gives for a grey image, normalised as Cellpose does; flow of length 1."""
    low, high = np.percentile(pixels, [1, 99])
    tile = np.zeros((1, 2, *pixels.shape))
    tile[0, 0] = (pixels - low) / (high - low)
    fields = forward(torch.load(weights, weights_only=True), torch.from_numpy(tile))[0]
    fields[:2] /= 5
    return fields.numpy().astype(np.float16)


def test_a_cellpose_file_segments_a_grey_image_to_its_own_fields_and_their_labels(
    cellpose: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = draw_nuclei((224, 224))
    expected = cellpose_fields(pixels, cellpose)
    median = float(np.median(expected[2]))  # random weights know no threshold
    options = SegmentOptions(model=str(cellpose), min_size=1, threshold=median)
    fields = fields_of_array(pixels[None], load_model(cellpose), options)
    np.testing.assert_allclose(fields, expected, rtol=2e-3, atol=2e-4)

    image = store_image(tmp_path / "image.zarr", pixels)
    settings = ("--min-size", 1, "--threshold", median, "--engine", "serial")
    answer(capsys, "segment", image, "--model", cellpose, "--labels", "cells", *settings)
    labels = open_view(image, "cells").values
    np.testing.assert_array_equal(labels, integrate(fields, integration_config(load_model(cellpose), options)))
    assert labels.max() > 10


def test_control_without_the_scale_the_fields_are_others(cellpose: Path) -> None:
    pixels = draw_nuclei((224, 224))
    fields = fields_of_array(pixels[None], load_model(cellpose), SegmentOptions(model=str(cellpose)))
    assert np.abs(fields[:2] * 5 - cellpose_fields(pixels, cellpose)[:2]).max() > 0.1


def test_channels_that_may_be_absent_are_zero(cellpose: Path) -> None:
    model, options = load_model(cellpose), SegmentOptions(model=str(cellpose))
    two = np.stack([draw_nuclei((64, 64), seed) for seed in (0, 1)])
    both, one = fields_of_array(two, model, options), fields_of_array(two[:1], model, options)
    assert not np.array_equal(both, one)


def test_an_image_with_more_channels_than_the_model_is_refused(
    cellpose: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = store_image(tmp_path / "rgb.zarr", np.stack([draw_nuclei((64, 64), seed) for seed in range(3)]))
    assert "1 to 2" in refused(capsys, "segment", image, "--model", cellpose)


def test_a_network_of_three_dimensions_is_for_volumes_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(random_state(channels=1, outputs=4, dim=3), tmp_path / "omni")
    image = store_image(tmp_path / "image.zarr", draw_nuclei((64, 64)))
    assert "3 dimensions" in refused(capsys, "segment", image, "--model", tmp_path / "omni")
    with pytest.raises(InputError, match="3 dimensions"):
        segment_array(draw_nuclei((64, 64)), SegmentOptions(model=str(tmp_path / "omni")))


def test_import_keeps_what_was_asked_and_export_brings_the_weights_back(
    cellpose: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--kind", "omnipose", "--padding", "reflect")
    shown = answer(capsys, "model", "import", cellpose, "--out", tmp_path / "mine", *asked)
    assert (shown["network"]["padding"], shown["logit"], shown["flow_scale"]) == ("reflect", False, 5)
    assert shown["provenance"]["source"]["sha256"] == load_model(cellpose).sha256
    assert shown == answer(capsys, "model", "show", tmp_path / "mine") | {"model": str(tmp_path / "mine")}
    done = answer(capsys, "model", "export", tmp_path / "mine", "--to", "omnipose", "--out", tmp_path / "back")
    assert any("from 1.0 on" in line for line in done["set"])
    back, first = (torch.load(tmp_path / name, weights_only=True) for name in ("back", "cyto_random"))
    assert all(torch.equal(value, first[name]) for name, value in back.items())


def test_the_shipped_model_is_listed_and_goes_to_cellpose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [model["name"] for model in answer(capsys, "model", "list")] == ["nuclei-fluo", "start"]
    assert run(["model", "list"]) == 0
    assert "nuclei-fluo: 1 channel, 1561303 parameters" in capsys.readouterr().out
    assert run(["model", "show", "nuclei-fluo"]) == 0
    assert "threshold: -2.25" in capsys.readouterr().out
    assert run(["model", "export", "nuclei-fluo", "--to", "cellpose", "--out", str(tmp_path / "out")]) == 0
    assert "percentile" in capsys.readouterr().out
    x = torch.rand((1, 1, 64, 64), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = load_model("nuclei-fluo").network(x)
        theirs = load_model(tmp_path / "out").network(torch.cat([x, x], dim=1))
    torch.testing.assert_close(theirs[:, :2], ours[:, :2] * 5, rtol=0, atol=1e-5)
    torch.testing.assert_close(theirs[:, 2], ours[:, 2] + 2.25, rtol=0, atol=1e-5)


def test_nothing_is_overwritten_unless_asked(
    cellpose: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ("model", "export", cellpose, "--to", "cellpose", "--out", out)
    answer(capsys, *command)
    assert "--overwrite" in refused(capsys, *command)
    answer(capsys, *command, "--overwrite")
    assert "--overwrite" in refused(capsys, "model", "import", cellpose, "--out", out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("model", "show", "nuclei"), "nuclei-fluo"),
        (("model", "import", "absent", "--out", "x"), "absent"),
        (("model", "import", "WEIGHTS", "--out", "x", "--kind", "stardist"), "omnipose"),
        (("model", "import", "WEIGHTS", "--out", "x", "--padding", "same"), "reflect"),
        (("model", "export", "WEIGHTS", "--to", "stardist", "--out", "x"), "cellpose"),
        (("model", "show", __file__), "tensors only"),
    ],
)
def test_mistakes_are_one_line(
    cellpose: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    given = [str(cellpose) if a == "WEIGHTS" else str(tmp_path / a) if a == "x" else a for a in arguments]
    assert said in refused(capsys, *given)
    assert not (tmp_path / "x").exists()


def test_own_models_are_known_by_name_with_their_licence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_model(tmp_path / "colonies")
    make_model(tmp_path / "plain")
    card = {"for": "colonies", "licence": "MIT", "scores": {"plates": "0.9 / 0.8"}}
    (tmp_path / "colonies" / "card.json").write_text(json.dumps(card))
    with pytest.raises(MissingDataError, match="no model 'colonies'"):
        load_model("colonies")
    monkeypatch.setenv("SKETCHSCALE_MODELS", str(tmp_path))
    assert load_model("colonies").sha256 == load_model(folder).sha256
    found = {model["name"]: model for model in list_models()}
    assert found["nuclei-fluo"]["shipped"]
    assert not found["colonies"]["shipped"]
    assert found["colonies"]["licence"] == "MIT"
    assert found["plain"]["licence"] == show_model("plain")["licence"] == UNKNOWN_LICENCE
    capsys.readouterr()
    assert run(["model", "list"]) == 0
    listed = capsys.readouterr().out
    assert "colonies (own): 1 channel" in listed
    assert "  AP 0.5 / 0.75: plates 0.9 / 0.8" in listed
    assert "  licence: unknown: ask who made it" in listed
