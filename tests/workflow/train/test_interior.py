"""Sketches with nothing but strokes inside objects, through the command line and every verb that reads a sketch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from skimage.io import imsave

from sketchscale.annotations.events import Stroke, append_events, read_events
from sketchscale.annotations.sketch import open_sketch
from sketchscale.cli import run as command_line
from sketchscale.config import Execution, TrainOptions
from sketchscale.networks.checkpoint import load_model
from sketchscale.workflow.train.train import train
from tests.pipeline import draw_nuclei, store_image

SHAPE = (120, 150)
SMALL = ("--width", 4, "--batch", 2, "--patch", 32, "--precision", "float32", "--threads", 1)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """A command as a user types it: stdout and stderr."""

    def call(*arguments: object, code: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        found = command_line([str(a) for a in arguments])
        out, err = capsys.readouterr()
        assert found == code, err
        return out, err

    return call


def image_and_masks(folder: Path) -> tuple[str, str]:
    pixels = draw_nuclei(SHAPE, 0)
    labels, _ = ndimage.label(ndimage.gaussian_filter(pixels.astype(float), 1) > 130)
    imsave(folder / "masks.png", labels.astype(np.uint16), check_contrast=False)
    return store_image(folder / "image.zarr", pixels), str(folder / "masks.png")


@pytest.mark.parametrize("style", ["interior", "points"])
def test_they_train_segment_and_say_where_to_draw_next(
    tmp_path: Path, run: Callable[..., tuple[str, str]], style: str
) -> None:
    image, masks = image_and_masks(tmp_path)
    sketch, model = tmp_path / "sketch.jsonl", tmp_path / "model"
    run("sketch", "simulate", masks, "--out", sketch, "--style", style, "--objects", 8)
    shown = json.loads(run("sketch", "show", sketch, "--image", image, "--out", tmp_path / "s.png", "--json")[0])
    assert shown["has_boundary_information"] is False
    assert shown["objects"] == 8
    command = ("train", image, "--sketch", sketch, "--out", model, "--steps", 40, "--rate", 0.01, *SMALL)
    said = run(*command, "--hold-out", 0.2, "--validate-every", 10, "--preview-every", 20)[1]
    assert "loss eikonal: boundaries give distances in 0 of" in said
    assert (model / "run" / "preview_000020.png").exists()
    stored = json.loads((model / "provenance.json").read_text())
    assert stored["options"]["loss"] == stored["training"]["loss"]["name"] == "eikonal"
    assert "score" in stored["calibrated"]
    run("segment", image, "--model", model, "--min-size", 0)
    run("where-next", image, "--model", model, "--sketch", sketch, "--size", 32)


def options(folder: Path, image: str, sketch: Path, **changes: Any) -> TrainOptions:
    given = TrainOptions(
        images=(image,),
        sketches=(str(sketch),),
        out=str(folder / "model"),
        width=4,
        steps=3,
        batch=2,
        patch=32,
        precision="float32",
        threads=1,
        preview_every=0,
    )
    return replace(given, **changes)


def test_outlines_give_the_bytes_of_sketchpose_and_a_resumed_training_keeps_its_loss(
    tmp_path: Path, run: Callable[..., tuple[str, str]]
) -> None:
    image, masks = image_and_masks(tmp_path)
    sketch = tmp_path / "sketch.jsonl"
    run("sketch", "simulate", masks, "--out", sketch, "--objects", 6)
    said: list[str] = []
    auto = train(options(tmp_path, image, sketch), on_step=said.append)
    named = train(options(tmp_path, image, sketch, loss="sketchpose", out=str(tmp_path / "named")))
    assert auto.sha256 == named.sha256
    assert sum("loss sketchpose: boundaries give distances in" in line for line in said) == 1
    raster = open_sketch(sketch, shape=SHAPE).rasterize()
    free = ndimage.binary_erosion((raster.labels == -1) & ~raster.boundary, np.ones((3, 3)))
    at = [(float(y), float(x)) for y, x in np.argwhere(free) if y % 2 and x % 2][:60]
    dots = [Stroke(points=(p,), radius_px=0.5, label="foreground", id=f"dot {p}") for p in at]
    append_events(sketch, dots)
    said.clear()
    longer = options(tmp_path, image, sketch)
    train(longer, Execution(engine="serial", resume=True), on_step=said.append)
    assert load_model(str(tmp_path / "model")).provenance["training"]["loss"]["name"] == "sketchpose"
    assert not any("loss eikonal" in line for line in said)
    fresh = options(tmp_path, image, sketch, out=str(tmp_path / "fresh"))
    train(fresh, on_step=said.append)
    assert any("loss eikonal" in line for line in said)


def test_without_background_random_weights_are_refused_and_a_start_model_warns(
    tmp_path: Path, run: Callable[..., tuple[str, str]]
) -> None:
    image, masks = image_and_masks(tmp_path)
    sketch, inside = tmp_path / "sketch.jsonl", tmp_path / "inside.jsonl"
    run("sketch", "simulate", masks, "--out", sketch, "--style", "interior", "--objects", 6)
    append_events(inside, [e for e in read_events(sketch) if isinstance(e, Stroke) and e.label == "foreground"])
    refused = run("train", image, "--sketch", inside, "--out", tmp_path / "none", "--steps", 2, *SMALL, code=2)[1]
    assert "no background" in refused
    assert "--init" in refused
    assert not (tmp_path / "none").exists()
    said: list[str] = []
    first = train(options(tmp_path, image, sketch))
    train(options(tmp_path, image, inside, init=first.model, out=str(tmp_path / "again")), on_step=said.append)
    assert any(line.startswith("warning: no background") for line in said)
