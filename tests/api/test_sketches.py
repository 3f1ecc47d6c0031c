"""Sketches made in Python: drawn, painted, saved, opened, and learned from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sketchscale as sk
from sketchscale.annotations.opening import open_sketch_file
from sketchscale.errors import InputError, OutputExistsError
from tests.pipeline import draw_nuclei, store_image

SHAPE = (60, 90)


def painted() -> np.ndarray:
    labels = np.zeros(SHAPE, np.int32)
    labels[10:25, 10:30], labels[10:25, 30:50], labels[40:50, 60:80] = 1, 2, 7
    return labels


def test_a_painted_sketch_says_the_same_once_saved_and_opened(tmp_path: Path) -> None:
    sketch = sk.Sketch.from_labels(painted())
    assert sketch.summary().objects == 3
    assert sketch.summary().pixels["background"] == 0
    assert sk.Sketch.from_labels(painted(), zero="background").summary().pixels["background"] == 4600
    path = tmp_path / "sketch.jsonl"
    sketch.save(path)
    again = sk.Sketch.open(path, shape=SHAPE)
    assert again == sketch
    np.testing.assert_array_equal(again.rasterize().labels, sketch.rasterize().labels)
    np.testing.assert_array_equal(again.rasterize().labels > 0, painted() > 0)
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        sketch.save(path)
    sketch.save(path, overwrite=True)
    assert len(open_sketch_file(path, shape=SHAPE).sketch.events) == len(sketch.events)


def test_a_drawn_sketch_has_strokes_by_class_and_whole_objects_with_their_outlines(tmp_path: Path) -> None:
    square = [(10, 10), (10, 20), (20, 20), (20, 10)]
    beside = [(10, 21), (10, 31), (20, 31), (20, 21)]
    sketch = sk.Sketch.from_lines(
        SHAPE, {"background": [[(50, 5), (50, 80)]], "foreground": [[(35, 40)]]}, outlined=[square, beside]
    )
    raster = sketch.rasterize()
    assert sketch.summary().objects == 3
    assert raster.labels[15, 15] != raster.labels[15, 26]
    assert raster.boundary[9, 15]
    assert raster.labels[50, 40] == 0
    assert raster.labels[30, 80] == -1
    with pytest.raises(InputError, match="leaves the image"):
        sk.Sketch.from_lines(SHAPE, {"background": [[(50, 5), (50, 180)]]})
    with pytest.raises(InputError, match="class"):
        sk.Sketch.from_lines(SHAPE, {"cell": [[(50, 5)]]})
    with pytest.raises(InputError, match=r"float64 and shape \(4, 4\)"):
        sk.Sketch.from_labels(np.zeros((4, 4)))


def test_a_model_is_trained_on_an_image_with_a_sketch_by_keyword_arguments(tmp_path: Path) -> None:
    image = store_image(tmp_path / "image.zarr", draw_nuclei(SHAPE))
    sk.Sketch.from_labels(painted(), zero="background").save(tmp_path / "sketch.jsonl")
    how = {
        "out": tmp_path / "model",
        "steps": 2,
        "width": 2,
        "patch": 64,
        "batch": 1,
        "save_every": 60,
        "device": "cpu",
    }
    result = sk.train(image, sketch=tmp_path / "sketch.jsonl", **how)
    assert result.steps == 2
    labels = sk.segment(draw_nuclei(SHAPE), model=result.model, threshold=-1, min_size=0)
    assert labels.shape == SHAPE
