"""The frame alone, around a training of one number: what is common to all trainings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sketchscale.errors import ResumeError, TaskError
from sketchscale.training.distributed import World
from sketchscale.training.frame import Frame, NotANumberError
from sketchscale.training.state import read_state


@dataclass(frozen=True, kw_only=True)
class Sums:
    steps: int = 6
    batch: int = 1
    rate: float = 0.5
    save_every_s: float = 1e9
    threads: int | None = None


class Summing(Frame[int]):
    """Adds up the numbers of the steps; shown, drawn and refreshed are noted."""

    def __init__(self, config: Sums, folder: Path, **rules: Any) -> None:
        super().__init__(config, str(folder), torch.device("cpu"), World())
        self.total, self.factor, self.shown, self.bad = 0.0, 1, list[int](), 0
        self.on_step, self.interrupted, self.workers = lambda step: None, lambda: False, 0
        for name, value in rules.items():
            setattr(self, name, value)

    def draw(self, step: int) -> int:
        return self.factor * step

    def learn(self, batch: int) -> dict[str, Any]:
        if self.bad and self.step + 1 == self.bad:
            raise NotANumberError("the sum is nan")
        self.total += batch
        return {"loss": self.total, "rate": self.config.rate}

    def named(self, batch: int) -> Mapping[str, torch.Tensor]:
        return {"number": torch.tensor(batch)}

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"total": torch.tensor(self.total)}

    def take(self, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any]) -> None:
        self.total = float(tensors["total"])

    def show(self) -> None:
        self.shown.append(self.step)


def test_steps_are_counted_logged_shown_when_due_and_saved(tmp_path: Path) -> None:
    run = Summing(Sums(), tmp_path, show_every=4)
    run.run(resume=False)
    assert (run.total, run.step, run.stopped, run.shown) == (15.0, 6, "steps", [4, 6])
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == [0, 1, 3, 6, 10, 15]
    assert lines[2]["progress"] == 0.5
    assert run.provenance()["steps"] == 6
    state = read_state(str(tmp_path))
    assert state is not None
    assert float(state[0]["total"]) == 15


def test_an_interrupted_training_goes_on_where_it_was(tmp_path: Path) -> None:
    first = Summing(Sums(), tmp_path)
    first.interrupted = lambda: first.step == 4
    with pytest.raises(KeyboardInterrupt):
        first.run(resume=False)
    second = Summing(Sums(threads=3), tmp_path)
    second.run(resume=True)
    assert (second.total, second.step) == (15.0, 6)
    with pytest.raises(ResumeError, match="differs in rate"):
        Summing(Sums(rate=0.1), tmp_path).run(resume=True)


def test_what_is_no_number_leaves_the_state_and_the_batch_and_lets_the_rate_change(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"step 3: the sum is nan; .*bad_batch.npz.*--resume and a smaller --rate"):
        Summing(Sums(), tmp_path, bad=3).run(resume=False)
    assert int(np.load(tmp_path / "bad_batch.npz")["number"]) == 2
    slower = Summing(replace(Sums(), rate=0.1), tmp_path)
    slower.run(resume=True)
    assert slower.total == 15


def test_what_is_new_is_drawn_from_the_next_step_on(tmp_path: Path) -> None:
    run = Summing(Sums(), tmp_path, refreshes=True, look_every_s=0.0, workers=2)

    def refresh() -> bool:
        run.factor, before = (10 if run.step >= 3 else 1), run.factor
        return run.factor != before

    run.refresh = refresh  # type: ignore[method-assign]
    run.run(resume=False)
    assert run.total == 0 + 1 + 2 + 30 + 40 + 50


def test_a_score_that_does_not_rise_a_stop_file_and_the_clock_end_it(tmp_path: Path) -> None:
    stale = Summing(Sums(), tmp_path / "stale")
    stale.is_stale = lambda: stale.step == 2  # type: ignore[method-assign]
    stopped = Summing(Sums(), tmp_path / "stopped")
    stopped.on_step = lambda step: (tmp_path / "stopped" / "stop").touch() if step.step == 5 else None
    late = Summing(Sums(steps=10**9), tmp_path / "late", minutes=1e-4)
    for run in (stale, stopped, late):
        run.run(resume=False)
    assert [run.stopped for run in (stale, stopped, late)] == ["no better validation", "stop file", "minutes"]
    assert (stale.step, stopped.step) == (2, 5)
    assert not (tmp_path / "stopped" / "stop").exists()
    assert math.isclose(late.progress, 1)
