"""A model that became worse than its start says so."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sketchscale.networks.checkpoint import load_model
from sketchscale.training.patches import TrainingImage
from sketchscale.workflow.train.beside_start import compare_with_start, kept_halfway
from sketchscale.workflow.train.train import train
from tests.workflow.segment.test_found_scale import discs
from tests.workflow.train.test_common_scale import drawn
from tests.workflow.train.test_train import small


@pytest.fixture(scope="module")
def annotated() -> TrainingImage:
    pixels = discs(20, side=200)
    y, x = np.mgrid[:200, :200]
    inside = np.hypot((y % 44) - 22, (x % 44) - 22) <= 10
    labels = np.where(inside, (y // 44) * 10 + x // 44 + 1, 0).astype(np.int32)
    return TrainingImage(image=(pixels / np.float32(200)).astype(np.float32)[None], labels=labels)


def test_a_model_that_finds_less_than_its_start_is_warned_of(annotated: TrainingImage) -> None:
    start = load_model("nuclei-fluo")
    blind = replace(start, config=replace(start.config, threshold=90.0))
    worse, same = (compare_with_start(model, start, [annotated], [annotated]) for model in (blind, start))
    assert worse is not None
    assert same is not None
    assert worse.trained == 0.0
    assert worse.start > 0.8
    assert "worse than the model that it started from (AP 0.5 on held-out annotation: 0.000" in worse.warning
    assert same.warning == ""
    assert same.trained == same.start


def test_without_held_out_objects_the_strokes_are_compared(annotated: TrainingImage) -> None:
    start = load_model("nuclei-fluo")
    few = replace(annotated, labels=np.where(annotated.labels == 1, 1, -1).astype(np.int32))
    found = compare_with_start(start, start, [few], [annotated])
    assert found is not None
    assert not found.held_out
    assert "that it learned from" in found.line
    assert compare_with_start(start, None, [annotated], []) is None
    colour = replace(annotated, image=np.repeat(annotated.image, 3, axis=0))
    assert compare_with_start(start, start, [colour], []) is None


def test_training_prints_and_records_both(tmp_path: Path) -> None:
    said: list[str] = []
    options = small(tmp_path, drawn(tmp_path, 20), init="nuclei-fluo", rate=0.5, steps=6)
    result = train(options, on_step=said.append)
    assert "worse than the model that it started from" in result.warning
    assert any(line.startswith("AP 0.5 on the annotation that it learned from: ") for line in said)
    record = load_model(result.model).provenance["beside_start"]
    assert record["start"] > record["trained"] + 0.3


def test_the_mean_with_the_start_is_kept_unless_the_trained_weights_are_clearly_better(
    annotated: TrainingImage,
) -> None:
    start = load_model("nuclei-fluo")
    network = copy.deepcopy(start.network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 1e-3 * parameter.abs().mean()
    trained = replace(start, network=network, config=replace(start.config, min_size=99, prominence=-1.0))
    mean = kept_halfway(trained, start, [], [annotated])
    pairs = zip(start.network.parameters(), network.parameters(), mean.network.parameters(), strict=True)
    assert all(torch.allclose(m, (a + b) / 2) for a, b, m in pairs)
    assert mean.config == replace(start.config, diameter=trained.config.diameter)
    blind = replace(start, config=replace(start.config, threshold=90.0))  # stands for a kind that it does not know
    assert kept_halfway(start, blind, [], [annotated]).network is start.network
    assert kept_halfway(trained, None, [], [annotated]) is trained


def test_held_out_annotation_decides_where_there_is_some(annotated: TrainingImage) -> None:
    start = load_model("nuclei-fluo")
    blind = replace(start, config=replace(start.config, threshold=90.0))
    nothing = replace(annotated, labels=np.zeros_like(annotated.labels))
    found = kept_halfway(start, blind, [nothing], [annotated])  # nothing held out: the strokes decide
    assert found.network is start.network
    kept = kept_halfway(blind, start, [annotated], [nothing])
    assert kept.provenance["mean_with_start"]["mean"] > 0.8
    assert kept.config.threshold == start.config.threshold
