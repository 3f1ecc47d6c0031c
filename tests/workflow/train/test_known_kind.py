"""A model trained from strokes knows what its annotated windows look like, and allows for much more than these show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from sketchscale.config import Execution, SegmentOptions
from sketchscale.networks.checkpoint import load_model
from sketchscale.training.patches import TrainingImage
from sketchscale.workflow.segment.segment import segment
from sketchscale.workflow.train.known_kind import LEAST, learn_kind
from sketchscale.workflow.train.train import train
from tests.pipeline import draw_nuclei
from tests.workflow.train.test_train import image_and_sketch, small


def annotated(seed: int, shape: tuple[int, int] = (120, 300)) -> TrainingImage:
    labels = np.full(shape, -1, np.int32)
    labels[10:20, -30:-20] = 1
    return TrainingImage(image=draw_nuclei(shape, seed)[None].astype(np.float32) / 255, labels=labels)


def test_intervals_hold_windows_and_whole_images_with_room(model: str) -> None:
    loaded = load_model(model)
    known = learn_kind(loaded, [annotated(seed) for seed in range(6)], [(0.9,)])
    kind = known.config.kind
    assert kind is not None
    assert kind.images == 4
    assert kind.brightness[0][1] == 1.0
    for low, high in (kind.undecided, kind.short_flow):
        assert high - low >= min(2 * LEAST, high, 1 - low)
    assert known.network is loaded.network
    assert replace(known.config, kind=None) == loaded.config


def test_a_model_of_maps_or_of_no_image_stays_as_it_is(model: str) -> None:
    loaded = load_model(model)
    assert learn_kind(loaded, []) is loaded
    maps = replace(loaded, config=replace(loaded.config, target="hover", threshold=0.5))
    assert learn_kind(maps, [annotated(0)]) is maps


def test_training_writes_the_record_and_its_image_is_known(tmp_path: Path) -> None:
    pair = image_and_sketch(tmp_path)
    result = train(small(tmp_path, pair))
    assert load_model(result.model).config.kind is not None
    assert segment(pair[0], SegmentOptions(model=result.model), Execution(engine="serial")).warning == ""
