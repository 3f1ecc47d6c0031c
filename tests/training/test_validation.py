"""Held-out annotation is never taught, and early stopping keeps what does best on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.errors import InputError
from sketchscale.networks import NetworkConfig, create_network
from sketchscale.training.config import Step
from sketchscale.training.distributed import World
from sketchscale.training.loop import train
from sketchscale.training.patches import TrainingImage
from sketchscale.training.validation import PLAIN, choose_held_out, score_held_out
from tests.training.examples import TINY, discs, example, picture, without

CPU = torch.device("cpu")


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 99), share=st.floats(0.05, 0.95), objects=st.integers(2, 8))
def test_every_annotated_pixel_is_taught_or_held_out_and_objects_stay_whole(
    seed: int, share: float, objects: int
) -> None:
    labels = discs(seed, 48)
    labels[labels > objects] = -1
    present = np.unique(labels[labels > 0])
    if len(present) < 2:
        return
    line = np.zeros(labels.shape, bool)
    line[:, 20] = True
    image = TrainingImage(image=picture(labels), labels=labels, boundary=line)
    (mask,) = choose_held_out([image], share, seed)
    taught, held = without(image, mask), without(image, ~mask)
    assert taught.boundary is not None
    assert held.boundary is not None
    known = labels >= 0
    np.testing.assert_array_equal((taught.labels >= 0) ^ (held.labels >= 0), known)
    np.testing.assert_array_equal(taught.boundary ^ held.boundary, line)
    np.testing.assert_array_equal(np.where(taught.labels >= 0, taught.labels, held.labels)[known], labels[known])
    parts = [set(np.unique(part.labels[part.labels > 0])) for part in (taught, held)]
    assert parts[0] | parts[1] == set(present)
    assert not parts[0] & parts[1]
    assert len(parts[1]) == min(len(present) - 1, max(1, round(share * len(present))))


def test_background_goes_with_the_nearest_object() -> None:
    labels = np.zeros((1, 9), np.int32)
    labels[0, 1], labels[0, 7] = 1, 2
    image = TrainingImage(image=np.zeros((1, 1, 9), np.float32), labels=labels)
    seen = {tuple(choose_held_out([image], 0.5, seed)[0][0].tolist()) for seed in range(8)}
    left = (True,) * 5 + (False,) * 4
    assert {mask[:4] + mask[5:] for mask in seen} == {left[:4] + left[5:], tuple(not v for v in left[:4] + left[5:])}


@pytest.mark.parametrize(
    ("share", "objects", "words"), [(0.2, 1, "at least two"), (0.0, 2, "above 0"), (1, 2, "below")]
)
def test_nothing_to_hold_out_is_one_line(share: float, objects: int, words: str) -> None:
    labels = np.zeros((9, 9), np.int32)
    labels[1, 1], labels[7, 7] = 1, objects
    image = TrainingImage(image=np.zeros((1, 9, 9), np.float32), labels=labels)
    with pytest.raises(InputError, match=words) as caught:
        choose_held_out([image], share, 0)
    assert "\n" not in str(caught.value)


def test_the_score_counts_annotated_pixels_alone_and_is_the_same_each_time() -> None:
    network = create_network(TINY.network, seed=4).eval()
    whole = example(1)
    some = without(whole, np.indices((64, 64))[0] > 30)
    score = score_held_out([some], TINY, CPU, World())
    assert score(network) == score(network) < 0
    far = 31 + network.context
    other = replace(some, image=np.where(np.indices((64, 64))[0] > far, 9, some.image).astype(np.float32))
    assert score_held_out([other], TINY, CPU, World())(network) == score(network)
    assert score_held_out([whole], TINY, CPU, World())(network) != score(network)
    assert PLAIN.scale == (1, 1)


def noise(seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 0.6, (1, 64, 64)).astype(np.float32)


def test_early_stopping_keeps_the_weights_before_it_learned_its_few_labels_by_heart(tmp_path: Path) -> None:
    """Two noisy objects are all it is taught; control: the last weights do worse on what was held out."""
    labels = discs(3)
    few = np.where(labels > 2, -1, labels).astype(np.int32)
    few[(labels == 0) & (np.indices(labels.shape)[1] > 12)] = -1
    noisy = [
        TrainingImage(image=picture(a, seed) + noise(seed), labels=b)
        for seed, a, b in ((3, labels, few), (4, discs(4), discs(4)))
    ]
    config = replace(
        TINY, network=NetworkConfig(widths=(8, 16)), steps=120, validate_every=10, patience=99, rate=2e-2, average=0.5,
        augment=PLAIN,
    )  # fmt: skip
    steps: list[Step] = []
    kept = train(noisy[:1], config, run_folder=tmp_path / "a", validation=noisy[1:], on_step=steps.append)
    scores = [s.score for s in steps if s.score is not None]
    score = score_held_out(noisy[1:], config, CPU, World())
    assert score(kept.network) == pytest.approx(max(scores), rel=1e-5)
    assert max(scores) > scores[-1] + 0.1
    stopped = train(noisy[:1], replace(config, patience=3), run_folder=tmp_path / "b", validation=noisy[1:])
    assert stopped.provenance["ended_by"] == "no better validation"
    assert stopped.provenance["steps"] < config.steps
    assert score(stopped.network) == pytest.approx(max(scores[: stopped.provenance["steps"] // 10]), rel=1e-5)
