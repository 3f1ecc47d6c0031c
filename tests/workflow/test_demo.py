"""The demo goes on where a model of a few steps misses what was clicked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sketchscale.workflow.demo import keep_hits
from sketchscale.workflow.labels import import_labels
from tests.pipeline import draw_nuclei, store_image


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
