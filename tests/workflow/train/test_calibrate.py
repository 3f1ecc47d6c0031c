"""Calibration on annotated objects: it finds the threshold and the size that fields need, from partial truth too."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import ndimage
from torch import nn

from sketchscale.annotations.simulate_mask import simulate_mask
from sketchscale.annotations.targets import targets_from_sketch
from sketchscale.networks import NetworkConfig
from sketchscale.networks.checkpoint import Model, ModelConfig
from sketchscale.training.patches import TrainingImage
from sketchscale.workflow.train.calibrate import JOININGS, _best, _Trial, calibrate


class _Shown(nn.Module):
    """A network whose output is its input: the image holds the fields."""

    stride, context = 1, 0

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.one


def discs(radius: int = 9, apart: int = 24, rows: int = 6) -> npt.NDArray[np.int32]:
    """A grid of discs, numbered."""
    side = apart * rows
    y, x = np.mgrid[:side, :side]
    inside = ((y % apart - apart / 2) ** 2 + (x % apart - apart / 2) ** 2) < radius**2
    return np.where(inside, 1 + (y // apart) * rows + x // apart, 0).astype(np.int32)


def rods(rows: int = 3, across: int = 12) -> npt.NDArray[np.int32]:
    """Bars of 40 by 8 px, 4 px apart, numbered."""
    y, x = np.mgrid[: rows * 44, : across * 12]
    return np.where((y % 44 < 40) & (x % 12 < 8), 1 + (y // 44) * across + x // 12, 0).astype(np.int32)


def shown(truth: npt.NDArray[np.int32], *, lifted: float = 0.0) -> TrainingImage:
    """The truth, and its own fields as the image; `lifted` px are added to the distance everywhere."""
    targets = targets_from_sketch(truth)
    fields = np.concatenate([targets.flow, targets.distance[None] + lifted]).astype(np.float32)
    return TrainingImage(image=fields, labels=truth)


def model() -> Model:
    config = ModelConfig(network=NetworkConfig(channels=3), threshold=-2.0, min_size=1)
    return Model(network=_Shown(), config=config, provenance={})


@pytest.mark.parametrize("lifted", [-2.0, 0.0, 3.0])
def test_the_threshold_follows_the_fields(lifted: float) -> None:
    found = calibrate(model(), [shown(discs(), lifted=lifted)]).config
    # anything between background and the outermost pixels is right
    assert max(-4, -5 + lifted) <= found.threshold < 0.5 + lifted


def test_the_smallest_size_lies_between_specks_and_objects() -> None:
    truth = discs()
    specks = np.zeros(truth.shape, bool)
    specks[2::24, 2::24] = True
    specks = ndimage.binary_dilation(specks, iterations=2)
    assert not (specks & (truth > 0)).any()
    seen = shown(truth)
    image = seen.image.copy()
    image[2][specks] = 1.0
    found = calibrate(model(), [replace(seen, image=image)]).config
    speck = np.bincount(ndimage.label(specks)[0].ravel())[1:].max()
    assert speck <= found.min_size < np.bincount(truth.ravel())[1:].min()


def test_parts_of_the_truth_say_the_same() -> None:
    """Cut objects must not make the smallest size small, nor the threshold another."""
    whole = shown(discs())
    labels = simulate_mask(whole.labels, 15, seed=1).rasterize().labels
    found = calibrate(model(), [replace(whole, labels=labels)]).config
    dense = calibrate(model(), [whole]).config
    assert found.min_size == dense.min_size
    assert found.threshold == pytest.approx(dense.threshold, abs=0.5)


def test_a_few_objects_decide_nothing() -> None:
    truth = discs()
    truth[truth > 4] = 0
    before = model()
    assert calibrate(before, [shown(truth)]) is before
    assert calibrate(before, [replace(shown(truth), labels=np.full(truth.shape, -1, np.int32))]) is before


def test_drawn_lines_count_as_outside() -> None:
    """Objects painted inside a drawn line, no background: only the line says that they must not swallow it."""
    truth = discs()
    away, nearest = ndimage.distance_transform_edt(truth == 0, return_indices=True)
    line = (truth == 0) & (away <= 2)
    image = shown(truth).image.copy()
    image[:2, line] = ((nearest - np.indices(truth.shape)) / np.maximum(away, 1))[:, line]
    image[2][line] = -0.3
    labels = np.where(truth > 0, truth, -1).astype(np.int32)
    given = TrainingImage(image=image, labels=labels, boundary=line)
    assert calibrate(model(), [given]).config.threshold >= -0.3


@pytest.mark.parametrize(("noise", "share"), [(0.3, None), (1.0, 0.3)])
def test_ends_join_pieces_only_where_that_is_better(noise: float, share: float | None) -> None:
    """Under much noise links and borders leave fragments; under little, all ways with links of 2 px are right."""
    seen = shown(rods())
    image = seen.image.copy()
    image[:2] += np.random.default_rng(0).normal(scale=noise, size=image[:2].shape)
    before = model()
    before = replace(before, config=replace(before.config, join_share=0.9, join_radius=7))
    found = calibrate(before, [replace(seen, image=image)]).config
    assert (found.join_share, found.join_radius) == (share, 5)


def test_objects_that_the_annotation_covers_less_weigh_more_in_the_smallest_size() -> None:
    """Of every large object a fifth is annotated, of the only small one all: small ones are more frequent than that."""
    truth = discs()
    y, x = np.mgrid[: truth.shape[0], : truth.shape[1]]
    small = truth == 8
    truth[small & ((y - y[small].mean()) ** 2 + (x - x[small].mean()) ** 2 > 16)] = 0
    labels = np.where((truth == 8) | ((truth > 0) & (np.hypot(y % 24 - 12, x % 24 - 12) < 4)), truth, -1)
    found = calibrate(model(), [replace(shown(truth), labels=labels.astype(np.int32))]).config
    assert 0 < found.min_size <= (truth == 8).sum() // 2


class _Counted(_Shown):
    """Counts the pixels that it is shown."""

    seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += x[0, 0].numel()
        return super().forward(x)


def test_the_cost_follows_the_annotation_and_not_the_image() -> None:
    """The same objects in a wide image: not a pixel more, and the same choice."""
    truth = discs()
    wide = np.full((3000, 3000), -1, np.int32)
    wide[: truth.shape[0], : truth.shape[1]] = truth
    image = np.zeros((3, *wide.shape), np.float32)
    image[:, : truth.shape[0], : truth.shape[1]] = shown(truth).image
    networks = [_Counted(), _Counted()]
    given = [shown(truth), TrainingImage(image=image, labels=wide)]
    small, large = (calibrate(replace(model(), network=n), [g]) for n, g in zip(networks, given, strict=True))
    assert networks[1].seen < 1.5 * networks[0].seen
    assert small.config == large.config


def test_no_window_begins_when_the_time_is_over_and_enough_was_seen() -> None:
    images = [shown(discs(rows=3)) for _ in range(8)]
    windows: list[tuple[int, int]] = []
    found = calibrate(model(), images, until=time.monotonic() - 1, on_window=lambda *at: windows.append(at))
    assert windows == [(0, 8)]
    assert found.provenance["calibrated"]["windows"] == 1
    assert calibrate(model(), images).provenance["calibrated"]["windows"] == 8


def test_of_dots_alone_the_threshold_nearest_to_0_is_taken_among_equals() -> None:
    """A pixel in each object and some of background: many thresholds have all of them on their side."""
    truth = discs()
    labels = np.full(truth.shape, -1, np.int32)
    labels[12::24, 12::24], labels[::24, ::24] = truth[12::24, 12::24], 0
    given = replace(shown(truth), labels=labels)
    before = model()
    assert calibrate(before, [given]) is before
    found = calibrate(before, [given], prefer=0.0, telling=1).config
    assert found.threshold == 0
    assert found.min_size == (truth == 1).sum() // 2
    assert calibrate(before, [given], telling=1).config.threshold <= -1


def test_what_a_start_model_says_is_kept_unless_another_choice_is_clearly_better() -> None:
    truth = discs()
    start = replace(model().config, threshold=-2.25, min_size=17, link_radius=1, prominence=-8.0)
    found = calibrate(model(), [shown(truth)], prefer=0.0, start=start).config
    assert (found.threshold, found.min_size, found.link_radius, found.prominence) == (-2.25, 17, 1, -8.0)
    bad = replace(start, threshold=3.0)
    found = calibrate(model(), [shown(truth)], prefer=0.0, start=bad).config
    assert found.threshold == 0
    assert found.min_size == 17


@pytest.mark.parametrize(("gain", "chosen"), [(0.015, 0), (0.025, 1)])
def test_the_default_joining_is_left_only_for_one_that_is_clearly_better(gain: float, chosen: int) -> None:
    scores = zip(JOININGS, (0.5, 0.5 + gain, 0.4, 0.4), strict=True)
    trials = [_Trial(score=score, threshold=0.0, min_size=0, joining=joining) for joining, score in scores]
    assert _best(trials, JOININGS, None).joining == JOININGS[chosen]
