"""Drawn ahead or not, a batch is the same; nothing draws once it was closed."""

from __future__ import annotations

import threading
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from sketchscale.losses import BatchTargets
from sketchscale.training.loop import train
from sketchscale.training.patches import PatchSource
from sketchscale.training.prefetch import Batch, Prefetcher, choose_workers, draw_batch
from sketchscale.training.validation import source_for
from tests.training.examples import TINY, example, same


def source() -> PatchSource:
    return source_for([example(1), example(2)], TINY, TINY.augment)


def equal(a: Batch, b: Batch) -> bool:
    targets = all(torch.equal(getattr(a[1], f.name), getattr(b[1], f.name)) for f in fields(BatchTargets))
    return targets and torch.equal(a[0], b[0])


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_in_order_and_are_those_of_their_steps(workers: int) -> None:
    drawn = source()
    with Prefetcher(lambda step: draw_batch(drawn, 7, step, range(2)), range(3, 8), workers=workers) as ahead:
        for step in range(3, 8):
            assert equal(ahead.take(), draw_batch(drawn, 7, step, range(2)))
        with pytest.raises(StopIteration):
            ahead.take()


def test_shares_of_a_batch_are_parts_of_it() -> None:
    drawn = source()
    whole, rest = draw_batch(drawn, 7, 3, range(4)), draw_batch(drawn, 7, 3, range(2, 4))
    assert torch.equal(whole[0][2:], rest[0])
    assert torch.equal(whole[1].distance[2:], rest[1].distance)


def test_what_goes_wrong_while_drawing_ahead_is_heard_where_the_batch_is_taken() -> None:
    def fail(step: int) -> Batch:
        raise ValueError(f"step {step}")

    with Prefetcher(fail, range(9), workers=1) as ahead, pytest.raises(ValueError, match="step 0"):
        ahead.take()


def test_at_most_one_batch_more_than_threads_is_drawn_ahead_and_none_after_closing() -> None:
    drawn, lock, batch = [], threading.Lock(), draw_batch(source(), 7, 0, range(1))

    def note(step: int) -> Batch:
        with lock:
            drawn.append(step)
        return batch

    ahead = Prefetcher(note, range(99), workers=2)
    ahead.take()
    time.sleep(0.05)
    ahead.close()
    assert sorted(drawn) == list(range(len(drawn)))
    assert len(drawn) <= 4


def test_training_ends_with_the_same_weights_drawn_ahead_or_not(tmp_path: Path) -> None:
    models = [train([example()], replace(TINY, workers=n), run_folder=tmp_path / str(n)) for n in (0, 1, 3)]
    assert same(models[0], models[1])
    assert same(models[0], models[2])


def test_a_single_core_draws_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0}, raising=False)
    assert choose_workers(None, torch.device("cpu")) == 0
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)), raising=False)
    assert choose_workers(None, torch.device("cpu")) == 1
    assert choose_workers(None, torch.device("cuda")) == 8
    assert choose_workers(2, torch.device("cpu")) == 2
