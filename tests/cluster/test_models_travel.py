"""A model that only the driver's machine has: workers read the copy that travels with the run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sketchscale.config import Execution, SegmentOptions
from sketchscale.engine.base import Event
from sketchscale.errors import MissingDataError
from sketchscale.networks.checkpoint import copy_model, load_model
from sketchscale.workflow.segment.segment import segment

pytestmark = pytest.mark.slow


def test_a_model_is_read_from_any_store(model: str) -> None:
    copy = copy_model(model, "memory://models-travel/mine")
    assert load_model(copy).sha256 == load_model(model).sha256
    with pytest.raises(MissingDataError, match=r"models-travel/none is not a model: config\.json is missing"):
        load_model("memory://models-travel/none")


def test_workers_read_the_copy_and_not_the_drivers_folder(image: str, model: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(model, mine)

    def on_event(event: Event) -> None:
        if (event.stage, event.kind) == ("predict", "start"):
            shutil.rmtree(mine)

    result = segment(image, SegmentOptions(model=str(mine)), Execution(engine="serial", block=128), on_event)
    assert (result.n > 20, mine.exists()) == (True, False)
