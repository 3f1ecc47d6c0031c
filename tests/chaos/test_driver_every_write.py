"""Killed before each change of a file and resumed: every file of the image is what it is without a kill."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.chaos.kill_loop import Loop, run_loop
from tests.pipeline import draw_nuclei, store_image

pytestmark = pytest.mark.slow


def commands(folder: Path, model: str, what: str) -> list[list[str]]:
    image, options = str(folder / "image.zarr"), ["--engine", "serial"]
    if what == "convert":
        np.save(folder / "a.npy", draw_nuclei((70, 100)))
        return [["convert", str(folder / "a.npy"), image, *options]]
    store_image(folder / "pristine.zarr", draw_nuclei((70, 100)))
    segment = ["segment", image, "--model", model, "--max-size", "80", "--block", "64", *options]
    segment += ["--precision", "float32"]
    refine = ["--fill-holes", "0.2", "--flow-error", "2.0"] if what == "refine" else []
    return [[*segment, *refine], *([["measure", image, "--block", "64", *options]] if what == "measure" else [])]


@pytest.mark.parametrize(
    ("what", "first", "step"),
    [
        ("convert", 3, 9),
        ("segment", 20, 80),
        *(pytest.param(what, 1, 1, marks=pytest.mark.nightly) for what in ("convert", "segment", "refine", "measure")),
    ],
)
def test_killed_before_a_change_and_resumed_every_byte_is_the_same(
    tmp_path: Path, model: str, what: str, first: int, step: int
) -> None:
    loop = Loop(folder=str(tmp_path), commands=commands(tmp_path, model, what), first=first, step=step)
    found = run_loop(loop, timeout_s=500 if step > 1 else 7200)
    assert found["wrong"] == []
    assert len(found["killed"]) >= (3 if step > 1 else 60)
