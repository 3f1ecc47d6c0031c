"""Training brings images to a common scale, and rehearses what a start knew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sketchscale.annotations.events import append_events
from sketchscale.annotations.simulate import simulate_strokes
from sketchscale.config import Execution
from sketchscale.errors import InputError
from sketchscale.networks.checkpoint import load_model, save_model
from sketchscale.training.patches import TrainingImage
from sketchscale.training.state import kept_setting
from sketchscale.workflow.runner import Runner
from sketchscale.workflow.train.common_scale import settle_scales
from sketchscale.workflow.train.images import Reading, SketchedImages
from sketchscale.workflow.train.rehearsal import REHEARSAL, open_rehearsal, rehearsal_bytes
from sketchscale.workflow.train.train import train
from tests.pipeline import store_image
from tests.workflow.segment.test_found_scale import discs
from tests.workflow.train.test_train import small


def drawn(folder: Path, diameter: float, name: str = "image") -> tuple[str, str]:
    """Discs of a diameter, and outlines of some of them."""
    pixels = discs(diameter, side=240)
    step = 2.2 * diameter
    y, x = np.mgrid[:240, :240]
    inside = np.hypot((y % step) - step / 2, (x % step) - step / 2) <= diameter / 2
    labels = np.where(inside, (y // step) * 100 + x // step + 1, 0).astype(np.int32)
    path = folder / f"{name}.jsonl"
    append_events(path, simulate_strokes(labels, n_objects=5, seed=0).events)
    return store_image(folder / f"{name}.zarr", pixels), str(path)


def test_images_are_scaled_to_one_diameter_and_the_model_finds_it(tmp_path: Path) -> None:
    pairs = drawn(tmp_path, 36), drawn(tmp_path, 12, "small")
    said: list[str] = []
    result = train(small(tmp_path, *pairs), on_step=said.append)
    config = load_model(result.model).config
    assert config.finds_scale
    assert config.diameter == pytest.approx(20, rel=0.15)
    assert kept_setting(result.model, "scales", resume=True) == "[0.5452538663326288, 1.681792830507429]"
    assert any("brought to 20 px, images scaled by 0.545 to 1.68" in line for line in said)


def test_a_training_that_goes_on_keeps_its_scale(tmp_path: Path) -> None:
    image, sketch = drawn(tmp_path, 36)
    options = small(tmp_path, (image, sketch))
    train(options)
    with Runner(Execution()) as runner:
        data = SketchedImages(
            (image,), (sketch,), Reading(channels=None, low=1, high=99.8, on_conflict="refuse"), runner
        )
    other = replace(options, diameter=9.0)
    assert settle_scales(other, data, None, resume=True) == settle_scales(options, data, None) == (0.5452538663326288,)
    assert settle_scales(other, data, None) == (2.1810154653305154,)


def test_the_scale_can_be_given(tmp_path: Path) -> None:
    pair = drawn(tmp_path, 36)
    given = {"1": {"rescale": 1.0}, "half": {"rescale": 0.5}, "told": {"diameter": 40.0}}
    found = {}
    for name, change in given.items():
        found[name] = load_model(train(small(tmp_path, pair, out=str(tmp_path / name), **change)).model).config
    assert [found["1"].finds_scale, found["half"].finds_scale, found["told"].finds_scale] == [False, True, True]
    assert found["1"].diameter == pytest.approx(36, rel=0.1)
    assert found["half"].diameter == found["told"].diameter == pytest.approx(18, rel=0.1)
    with pytest.raises(InputError, match="--diameter and --rescale exclude each other"):
        train(small(tmp_path, pair, out=str(tmp_path / "x"), rescale=1.0, diameter=9.0))


def test_h_and_v_maps_keep_the_scale_of_their_image(tmp_path: Path) -> None:
    pair = drawn(tmp_path, 36)
    config = load_model(train(small(tmp_path, pair, loss="hover")).model).config
    assert not config.finds_scale
    assert config.diameter == pytest.approx(36, rel=0.15)


def windows(channels: int) -> list[TrainingImage]:
    """Two windows of random intensities with an object each."""
    rng = np.random.default_rng(0)
    labels = np.zeros((48, 48), np.int32)
    labels[10:30, 12:30] = 1
    return [
        TrainingImage(image=rng.random((channels, 48, 48), np.float32), labels=labels + k * (labels > 0))
        for k in (0, 1)
    ]


def test_windows_come_back_as_they_were(tmp_path: Path) -> None:
    grey, colour = windows(1), windows(3)
    (tmp_path / REHEARSAL).write_bytes(rehearsal_bytes([*grey, *colour], 3))
    one, three = (open_rehearsal(str(tmp_path), channels) for channels in (1, 3))
    assert one is not None
    assert three is not None
    assert (len(one.images), len(three.images), three.channels) == (2, 4, 3)
    assert np.abs(one.images[:, 0] / 204 - [w.image[0] for w in grey]).max() < 0.003
    np.testing.assert_array_equal(three.labels[2:], [w.labels for w in colour])
    assert open_rehearsal(str(Path(load_model.__code__.co_filename).parent), 1) is None


def test_a_start_with_windows_is_rehearsed_unless_it_is_not_wanted(tmp_path: Path) -> None:
    pair = drawn(tmp_path, 20)
    first = train(small(tmp_path, pair, out=str(tmp_path / "first")))
    plain = train(small(tmp_path, pair, init=first.model, out=str(tmp_path / "plain")))
    with pytest.raises(InputError, match="has no windows of its own training"):
        train(small(tmp_path, pair, init=first.model, out=str(tmp_path / "x"), rehearse=0.5))
    (Path(first.model) / REHEARSAL).write_bytes(rehearsal_bytes(windows(1), 1))
    made = [
        train(small(tmp_path, pair, init=first.model, out=str(tmp_path / name), rehearse=share))
        for name, share in (("with", "auto"), ("again", 0.5), ("without", 0.0))
    ]
    assert made[0].sha256 == made[1].sha256 != made[2].sha256 == plain.sha256
    assert load_model(made[0].model).provenance["synthetic"][0]["kind"] == "rehearsal"


def test_the_rate_from_a_start_is_lower(tmp_path: Path) -> None:
    pair = drawn(tmp_path, 20)
    first = train(small(tmp_path, pair))
    train(small(tmp_path, pair, init=first.model, out=str(tmp_path / "b")))
    rates = [float(kept_setting(out, "rate", resume=True) or 0) for out in (first.model, str(tmp_path / "b"))]
    assert rates[1] < rates[0] == 3e-3


def test_windows_beside_synthetic_scenes_are_left_out(tmp_path: Path) -> None:
    model = load_model("nuclei-fluo")
    save_model(tmp_path / "m", model.network, model.config, model.provenance)
    assert open_rehearsal(str(tmp_path / "m"), 1) is None
