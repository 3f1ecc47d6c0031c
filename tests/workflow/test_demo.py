"""The demo goes on where a model of a few steps misses what was clicked."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from sketchscale.errors import QualityError
from sketchscale.workflow.demo import _Demo, keep_hits
from sketchscale.workflow.labels.labels import import_labels
from sketchscale.workflow.train.train import TrainResult
from tests.pipeline import draw_nuclei, make_model, store_image

SAMPLES = Path(__file__).resolve().parents[2] / "sketchscale" / "samples" / "fluorescence"


@pytest.mark.parametrize(
    ("clicks", "classes", "kept"),
    [
        ("4,4,round\n25,15,round\n15,15,long\n", 2, "1,round\n2,long\n"),
        ("15,15,long\n16,16,round\n", 1, "2,long\n"),
        ("25,15,round\n", 0, ""),
    ],
)
def test_clicks_that_hit_are_kept_once_an_object(tmp_path: Path, clicks: str, classes: int, kept: str) -> None:
    mask = np.zeros((30, 20), np.uint8)
    mask[2:8, 3:9], mask[12:20, 5:18] = 1, 2
    np.save(tmp_path / "mask.npy", mask)
    image = str(store_image(tmp_path / "image.zarr", draw_nuclei((30, 20))))
    import_labels(str(tmp_path / "mask.npy"), image, "cells")
    (tmp_path / "clicks.csv").write_text(f"y,x,class\n{clicks}")
    assert keep_hits(image, "cells", str(tmp_path / "clicks.csv"), str(tmp_path / "hits.csv")) == classes
    assert (tmp_path / "hits.csv").read_text() == f"label,class\n{kept}"


class _Blind(_Demo):
    """The demo with a model that sees nothing, as one of a few steps may be."""

    def _train(self, image: str, sketch: str) -> str:
        model = make_model(self.folder / "model", threshold=500.0)
        self.trained = TrainResult(
            model=model, sha256="", steps=4, loss=1.0, seconds=75.0, threshold=500.0, min_size=1, summary="4 steps",
            warning="4 steps are too few",
        )  # fmt: skip
        return model


def test_a_demo_that_finds_nothing_fails_and_says_why(tmp_path: Path) -> None:
    shutil.copytree(SAMPLES, tmp_path / "samples")
    for folder in ("images", "masks"):
        for path in (tmp_path / "samples" / folder).glob("*.png"):
            if path.stem > "fluorescence-2":
                path.unlink()  # two images say as much as five
    with pytest.raises(QualityError, match="4 steps are too few; to fix: more --minutes"):
        _Blind(tmp_path, 1.25, "float32", 0, lambda line: None).run()
    assert (tmp_path / "report.html").is_file()
