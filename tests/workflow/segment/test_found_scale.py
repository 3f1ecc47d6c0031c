"""The scale of an image is found by its objects or its pixel size, recorded, and kept by a resumed run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from sketchscale.config import Execution, SegmentOptions
from sketchscale.inference.resample import resampled_box
from sketchscale.io.ome_zarr.groups import read_attributes
from sketchscale.networks.checkpoint import load_model, save_model
from sketchscale.networks.model import Model
from sketchscale.training.scale import rounded_scale
from sketchscale.workflow.segment import found_scale
from sketchscale.workflow.segment.arrays import segment_array
from sketchscale.workflow.segment.found_scale import find_scale, with_scale
from sketchscale.workflow.segment.segment import segment
from tests.pipeline import store_image

SERIAL = Execution(engine="serial")


def discs(diameter: float, *, side: int = 400) -> npt.NDArray[np.uint8]:
    """Bright discs on a dark ground, uint8 (y, x)."""
    step = 2.2 * diameter
    y, x = np.mgrid[:side, :side]
    from_centre = np.hypot((y % step) - step / 2, (x % step) - step / 2)
    clean = 20 + 180 * np.clip(diameter / 2 - from_centre + 0.5, 0, 1)
    return np.clip(clean + np.random.default_rng(0).normal(0, 4, clean.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def finder() -> Model:
    """The shipped network, told to look for the scale."""
    model = load_model("nuclei-fluo")
    return replace(model, config=replace(model.config, finds_scale=True, kind=None))


@pytest.fixture(scope="module")
def folder(finder: Model, tmp_path_factory: pytest.TempPathFactory) -> str:
    made = tmp_path_factory.mktemp("finder") / "model"
    save_model(made, finder.network, finder.config, finder.provenance)
    return str(made)


@pytest.mark.parametrize("diameter", [10, 20, 34, 60])
def test_objects_are_brought_to_the_diameter_of_the_model(finder: Model, diameter: float) -> None:
    pixels = discs(diameter)
    found = find_scale(finder, pixels.shape, lambda box: pixels[None, *box.slices])
    assert found * diameter == pytest.approx(finder.config.diameter, rel=0.2)
    assert found == rounded_scale(found)


def test_an_image_without_objects_keeps_its_scale(finder: Model) -> None:
    flat = np.full((90, 70), 7, np.uint8)
    assert find_scale(finder, flat.shape, lambda box: flat[None, *box.slices]) == 1


def test_pixel_sizes_go_before_looking(finder: Model) -> None:
    model = replace(finder, config=replace(finder.config, pixel_um=0.5))

    def never(box: object) -> npt.NDArray[np.uint8]:
        raise AssertionError("no pixel is needed")

    assert with_scale(SegmentOptions(), model, (100, 100), never, pixel_um=0.25).rescale == 0.5
    given = SegmentOptions(diameter=12.0)
    assert with_scale(given, model, (100, 100), never, pixel_um=0.25) is given
    assert with_scale(SegmentOptions(), load_model("nuclei-fluo"), (100, 100), never).rescale is None


def test_the_scale_is_recorded_and_a_resumed_run_keeps_it(
    tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = discs(44)
    image = store_image(tmp_path / "large.zarr", pixels)
    options = SegmentOptions(model=folder)
    result = segment(image, options, SERIAL)
    assert result.scale == find_scale(load_model(folder), pixels.shape, lambda box: pixels[None, *box.slices]) < 0.6
    record = (read_attributes(image, "labels/nuclei") or {})["sketchscale"]
    assert record["grid"]["scale"] == result.scale
    labels = segment_array(pixels, options)
    assert labels.max() == result.n
    assert np.median(np.bincount(labels.ravel())[1:]) == pytest.approx(np.pi / 4 * 44**2, rel=0.15)
    monkeypatch.setattr(found_scale, "find_scale", lambda *args: 3.0)  # another machine may find another one
    assert segment(image, options, replace(SERIAL, resume=True)).scale == result.scale


def test_an_enlarged_image_gives_the_same_objects(folder: str) -> None:
    pixels = discs(22, side=220)
    larger = np.round(resampled_box(pixels[None], 2.0)[0]).astype(np.uint8)
    options = SegmentOptions(model=folder)
    assert segment_array(larger, options).max() == segment_array(pixels, options).max()
