from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from sketchscale.annotations.events import Stroke, append_events
from sketchscale.annotations.sketch import RasterSketch, open_sketch
from sketchscale.cli import run
from sketchscale.config import Execution
from sketchscale.errors import InputError
from sketchscale.geometry import Box
from sketchscale.networks import NetworkConfig
from sketchscale.networks.checkpoint import Model, ModelConfig, load_model, save_model
from sketchscale.synthesis import outlines
from sketchscale.synthesis.model import Synthesis, load_synthesis
from sketchscale.synthesis.outlines import OutlineConfig, label_from_points, leave_drawn, outline_image, read_foreground
from sketchscale.synthesis.scenes import PointedImage
from sketchscale.workflow.runner import Runner
from sketchscale.workflow.synthesize.clicked_images import read_pointed
from tests.pipeline import make_model
from tests.synthesis.tiny import stored_synthesis, tiny_synthesis
from tests.workflow.synthesize.test_train import image_and_points


class Brightness(nn.Module):
    """Reads white as foreground, pixel by pixel; its h and v are 0."""

    stride = 1

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(4.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bright = self.gain * x.mean(1, keepdim=True)
        return torch.cat([bright * 0, bright * 0, bright], 1)


@pytest.fixture
def seer() -> Synthesis:
    made = tiny_synthesis()
    return replace(made, masker=Brightness())


def discs(shape: tuple[int, int], centres: list[tuple[int, int]], radius: float) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.any([(y - b) ** 2 + (x - a) ** 2 <= radius**2 for b, a in centres], 0)


def pointed(seer: Synthesis, shape: tuple[int, int], centres: list[tuple[int, int]], radius: float) -> PointedImage:
    image = np.where(discs(shape, centres, radius), 1.0, -1.0).astype(np.float32)
    channels = seer.config.generator.channels
    return PointedImage(image=np.repeat(image[None], channels, 0), points=np.array(centres, float))


def test_objects_are_found_around_their_points_and_nothing_where_none_was_clicked(seer):
    image = pointed(seer, (60, 70), [(15, 15), (40, 50), (15, 50)], 5)
    clicked = replace(image, points=image.points[:2])
    labels = outline_image(seer, clicked)
    assert (labels == 1).sum() == discs((60, 70), [(15, 15)], 5).sum()
    assert (labels[discs((60, 70), [(40, 50)], 5)] == 2).all()
    assert (labels[discs((60, 70), [(15, 50)], 5)] == -1).all(), "bright and not clicked: unknown, not background"
    assert (labels[~discs((60, 70), [(15, 15), (40, 50), (15, 50)], 5)] == 0).all()


def test_objects_that_meet_are_parted_between_their_points():
    seen = np.zeros((20, 40), np.float32)
    seen[5:15, 5:35] = 0.9
    labels = label_from_points(seen, np.array([[10.0, 10.0], [10.0, 29.0]]), 20.0)
    assert set(np.unique(labels[5:15, 5:19])) == {1}
    assert set(np.unique(labels[5:15, 21:35])) == {2}


def test_an_object_reaches_no_farther_than_it_may_and_holds_its_point():
    seen = np.full((9, 60), 0.9, np.float32)
    seen[4, 5] = 0.0
    labels = label_from_points(seen, np.array([[4.0, 5.0]]), 10.0)
    assert labels[4, 5] == 1
    assert np.flatnonzero(labels[4] == 1).max() == 20
    assert (labels[:, 25:] == -1).all()


def test_the_nearer_to_the_point_the_less_sure_a_pixel_has_to_be():
    """Half a diameter away its odds are taken as they were read, nearer they count for more, farther for less."""
    odds = 0.2 / 0.8
    for away, wanted in ((0.35, -0.15), (0.5, 0.0), (0.75, 0.25), (1.25, 0.75)):
        for beyond, inside in ((wanted - 0.02, False), (wanted + 0.02, True)):
            there = odds * np.exp(beyond)
            seen = np.full((1, 60), there / (1 + there), np.float32)
            seen[0, : int(away * 20)] = 0.99
            labels = label_from_points(seen, np.array([[0.0, 0.0]]), 20.0)
            assert (labels[0, int(away * 20)] == 1) == inside, (away, beyond)


def test_where_all_objects_were_clicked_the_rest_is_background():
    seen = np.array([[0.05, 0.9, 0.9, 0.2, 0.05, 0.9]], np.float32)
    clicked = OutlineConfig(all_clicked=True)
    assert label_from_points(seen, np.array([[0.0, 1.0]]), 2.0, clicked).tolist() == [[0, 1, 1, 0, 0, 0]]
    assert (label_from_points(seen, np.zeros((0, 2)), 2.0, clicked) == 0).all()


def test_what_is_unsure_stays_unknown():
    seen = np.array([[0.05, 0.14, 0.9, 0.2, 0.02]], np.float32)
    points = np.array([[0.0, 2.0]])
    unsure = OutlineConfig(foreground=0.25, background=0.1)
    assert label_from_points(seen, points, 2.0, unsure).tolist() == [[0, -1, 1, -1, 0]]
    sure = OutlineConfig(foreground=0.15, background=0.12)
    assert label_from_points(seen, points, 2.0, sure).tolist() == [[0, -1, 1, 1, 0]]
    with pytest.raises(InputError, match=r"background up to 0.6, foreground from 0.5"):
        OutlineConfig(foreground=0.5, background=0.6)


def test_tiles_change_nothing(seer, monkeypatch):
    rng = np.random.default_rng(3)
    centres = [(int(y), int(x)) for y, x in rng.permutation(np.argwhere(np.ones((11, 13))))[:60] * 11 + 6]
    image = pointed(seer, (130, 150), centres, 4)
    whole = outline_image(seer, image)
    monkeypatch.setattr(outlines, "TILE", 37)
    assert np.array_equal(outline_image(seer, image), whole)
    assert len(np.unique(whole)) == 61


def test_reading_is_the_same_however_the_image_lies():
    synthesis = tiny_synthesis()
    image = np.random.default_rng(0).random((synthesis.config.generator.channels, 40, 40), np.float32)
    seen = read_foreground(synthesis, image)
    turned = read_foreground(synthesis, np.ascontiguousarray(np.rot90(image, 1, (1, 2))[..., ::-1]))
    np.testing.assert_allclose(np.rot90(turned[:, ::-1], -1), seen, atol=1e-5)


class Distance(nn.Module):
    """A segmentation network whose distance is (channel 0 - 0.5) * 20 px; flow 0."""

    stride, context = 1, 0

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(20.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        distance = self.gain * (x[:, :1] - 0.5)
        return torch.cat([distance * 0, distance * 0, distance], 1)


def distance_model(channels: int = 3, **changes: Any) -> Model:
    shape = NetworkConfig(channels=channels, widths=(4, 8))
    return Model(network=Distance(), config=ModelConfig(network=shape, **changes), provenance={}, sha256=None)


def test_a_model_reads_along_and_both_count_alike(seer):
    image = np.random.default_rng(5).random((3, 12, 15), np.float32)
    alone = read_foreground(seer, image).astype(np.float64)
    joined = read_foreground(seer, image, distance_model(threshold=1.5))
    for y, x in np.ndindex(joined.shape):  # pixel by pixel, as the docstring says it
        own = np.clip(np.log(alone[y, x] / (1 - alone[y, x])) - np.log(0.2 / 0.8), -4, 4)
        distance = float(np.float16(20 * (image[0, y, x] - 0.5)))  # as fields are stored
        other = np.clip(distance - 1.5, -4, 4)
        odds = np.exp((own + other) / 2) * 0.2 / 0.8
        assert joined[y, x] == pytest.approx(odds / (1 + odds), rel=1e-4)


def test_a_model_of_maps_reads_along_by_its_probability(seer):
    image = np.random.default_rng(6).random((3, 9, 8), np.float32)
    joined = read_foreground(seer, image, distance_model(target="hover", threshold=0.4))
    own = np.clip(np.log(read_foreground(seer, image) / (1 - read_foreground(seer, image))) + np.log(4), -4, 4)
    odds = np.exp((own + np.clip(20 * (image[0] - 0.5) - np.log(0.4 / 0.6), -4, 4)) / 2) / 4
    np.testing.assert_allclose(joined, odds / (1 + odds), rtol=1e-3)


def test_where_the_two_agree_nothing_changes_and_what_one_overlooked_is_found(seer):
    image = pointed(seer, (40, 60), [(20, 15), (20, 45)], 5)
    assert np.array_equal(outline_image(seer, image, model=distance_model()), outline_image(seer, image))
    grey = replace(image, image=np.where(discs((40, 60), [(20, 45)], 5), -0.5, image.image))
    dab = discs((40, 60), [(20, 45)], 3)
    assert np.array_equal(outline_image(seer, grey) == 2, dab), "the synthesis sees nothing there"
    grey.image[0][discs((40, 60), [(20, 45)], 5)] = 1.0
    seen = outline_image(seer, grey, model=distance_model())
    assert np.array_equal(seen == 2, discs((40, 60), [(20, 45)], 5))


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (distance_model(channels=1), "a model of 1 channels; expected: 3 channels, as the synthesis"),
        (distance_model(low=0.1), r"percentiles 0.1 and 99.8; expected: percentiles 1 and 99.8"),
    ],
)
def test_a_model_of_other_images_is_refused(seer, model, complaint):
    with pytest.raises(InputError, match=complaint):
        outline_image(seer, pointed(seer, (40, 40), [(20, 20)], 5), model=model)


@given(data=st.data())
def test_drawn_objects_replace_the_outlines_that_they_touch(data):
    shape = (6, 7)
    labels = data.draw(arrays(np.int32, shape, elements=st.integers(-1, 4)))
    drawn = data.draw(arrays(np.int32, shape, elements=st.integers(-1, 2)))
    boundary = data.draw(arrays(np.bool_, shape)) & (drawn < 0)
    left = leave_drawn(labels, RasterSketch(labels=drawn, boundary=boundary))
    touched = {int(a) for a, b in zip(labels.flat, drawn.flat, strict=True) if a > 0 and b > 0}
    for at in np.ndindex(shape):
        gone = drawn[at] >= 0 or boundary[at] or int(labels[at]) in touched
        assert left[at] == (-1 if gone else labels[at])


def test_other_channels_are_refused(seer):
    image = PointedImage(image=np.zeros((2, 70, 70), np.float32), points=np.array([[5.0, 5.0]]))
    with pytest.raises(InputError, match="image has 2 channels; expected"):
        outline_image(seer, image)


def test_the_command_writes_sketches_that_train_takes(tmp_path, capsys):
    image, points = image_and_points(tmp_path)
    synthesis = stored_synthesis(tmp_path / "synthesis", channels=1)
    arguments = ["synthesize", "outline", synthesis, image, "--points", points, "--out", str(tmp_path / "sketches")]
    code = run([*arguments, "--json"])
    said = capsys.readouterr()
    assert code == 0, said.err
    (told,) = json.loads(said.out)
    sketch = open_sketch(told["sketch"], shape=(140, 150))
    labels = sketch.rasterize(Box((0, 0), (140, 150))).labels
    count = len(Path(points).read_text().splitlines()) - 1
    assert told["objects"] == count == len(np.unique(labels[labels > 0]))
    assert run(arguments) == 2
    assert "is there already" in capsys.readouterr().err
    assert run([*arguments, "--overwrite"]) == 0


def test_strokes_are_kept_and_a_model_reads_along(tmp_path, capsys):
    image, points = image_and_points(tmp_path)
    synthesis = stored_synthesis(tmp_path / "synthesis", channels=1)
    strokes = tmp_path / "strokes.jsonl"
    line = ((30.0, 20.0), (30.0, 60.0))
    append_events(strokes, [Stroke(id="a", points=line, radius_px=4.0, label="foreground", object=3, image="plate")])
    drawn = open_sketch(strokes, shape=(140, 150)).rasterize().labels > 0
    arguments = ["synthesize", "outline", synthesis, image, "--points", points, "--sketch", str(strokes), "--json"]
    model = make_model(tmp_path / "model")
    eager = load_model(model)
    save_model(model, eager.network, replace(eager.config, threshold=-50.0), {})  # sees objects everywhere
    assert run([*arguments, "--out", str(tmp_path / "both"), "--model", model]) == 0, capsys.readouterr().err
    (told,) = json.loads(capsys.readouterr().out)
    both = open_sketch(told["sketch"], shape=(140, 150)).rasterize().labels
    assert len(np.unique(both[drawn])) == 1
    assert np.array_equal(both == both[drawn][0], drawn), "the stroke is an object of its own, as it was drawn"
    assert told["objects"] == len(np.unique(both[both > 0]))
    assert run([*arguments, "--out", str(tmp_path / "alone")]) == 0
    (alone,) = json.loads(capsys.readouterr().out)
    alone = open_sketch(alone["sketch"], shape=(140, 150)).rasterize().labels
    assert (alone > 0).sum() < (both > 0).sum() / 2


def test_a_painted_image_is_kept_like_strokes(tmp_path, capsys):
    image, points = image_and_points(tmp_path)
    synthesis = stored_synthesis(tmp_path / "synthesis", channels=1)
    painted = np.zeros((140, 150), np.uint8)
    painted[26:35, 20:60], painted[100:] = 7, 255
    np.save(tmp_path / "painted.npy", painted)
    arguments = ["synthesize", "outline", synthesis, image, "--points", points, "--out", str(tmp_path / "out")]
    arguments += ["--sketch", str(tmp_path / "painted.npy"), "--class", "255=background", "--json"]
    assert run(arguments) == 0, capsys.readouterr().err
    (told,) = json.loads(capsys.readouterr().out)
    labels = open_sketch(told["sketch"], shape=(140, 150)).rasterize().labels
    assert np.array_equal(labels == labels[30, 40], painted == 7)
    assert (labels[100:] == 0).all()


def test_a_model_from_a_folder_reads_as_one_in_evaluation_mode(tmp_path):
    image, points = image_and_points(tmp_path)
    synthesis = stored_synthesis(tmp_path / "synthesis", channels=1)
    model = load_model(make_model(tmp_path / "model"))
    model.network.train()(torch.rand(4, 1, 32, 32) * 3)  # batch norm has seen something else than this image
    save_model(str(tmp_path / "model"), model.network, replace(model.config, threshold=-4.2), {})
    out = tmp_path / "sketches"
    arguments = ["synthesize", "outline", synthesis, image, "--points", points, "--out", str(out)]
    assert run([*arguments, "--model", str(tmp_path / "model")]) == 0
    (sketch,) = out.iterdir()
    read = open_sketch(sketch, shape=(140, 150)).rasterize().labels
    with Runner(Execution()) as runner:
        (stored,) = read_pointed([image], [points], channels=None, low=1.0, high=99.8, runner=runner)
    still = load_model(tmp_path / "model")
    still.network.eval()
    expected = outline_image(load_synthesis(synthesis), stored, model=still)
    assert np.array_equal(read > 0, expected > 0)
    still.network.train()
    assert not np.array_equal(outline_image(load_synthesis(synthesis), stored, model=still) > 0, expected > 0)


def test_a_model_and_sketches_that_do_not_fit_are_refused(tmp_path, capsys):
    image, points = image_and_points(tmp_path)
    synthesis = stored_synthesis(tmp_path / "synthesis", channels=1)
    out = tmp_path / "sketches"
    arguments = ["synthesize", "outline", synthesis, image, "--points", points, "--out", str(out)]
    assert run([*arguments, "--model", make_model(tmp_path / "two", channels=2)]) == 2
    assert "a model of 2 channels; expected: 1 channels, as the synthesis" in capsys.readouterr().err
    (tmp_path / "a.jsonl").touch()
    assert run([*arguments, "--sketch", str(tmp_path / "a.jsonl"), "--sketch", str(tmp_path / "a.jsonl")]) == 2
    assert "1 images and 2 sketches; expected: one sketch for each image" in capsys.readouterr().err
    assert run([*arguments, "--sketch", str(tmp_path / "none.jsonl")]) != 0
    assert not out.exists()


def test_what_does_not_fit_is_refused_before_a_sketch_is_written(tmp_path, capsys):
    image, points = image_and_points(tmp_path)
    arguments = [image, "--points", points, "--out", str(tmp_path / "sketches")]
    synthesis = stored_synthesis(tmp_path / "three", channels=3)
    assert run(["synthesize", "outline", synthesis, *arguments]) == 2
    assert "has 1 channels; expected: 3, as the synthesis" in capsys.readouterr().err
    assert not (tmp_path / "sketches").exists()
    (tmp_path / "sketches").touch()
    synthesis = stored_synthesis(tmp_path / "one", channels=1)
    assert run(["synthesize", "outline", synthesis, *arguments]) == 2
    assert "expected: a writable place with free space; to fix: free space, or another --out" in capsys.readouterr().err
