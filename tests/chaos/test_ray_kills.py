"""Ray's workers and head are killed while a plan runs: the same bytes as in series, or one error in time.

What is killed when is drawn from a seed, which a failing test prints.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

pytest.importorskip("ray")

from sketchscale.engine import open_engine
from sketchscale.engine.base import Engine, Event, Needs, run_plan
from sketchscale.errors import UnreachableError
from tests.chaos.copying import copying, in_series, written

pytestmark = pytest.mark.slow


def children(*names: str) -> list[psutil.Process]:
    """Living processes below this one with such names."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            command = process.cmdline()
            if command and any(name in command[0] for name in names):
                found.append(process)
    return found


class Killer:
    """Kills a random worker that runs a task, each time that progress passes one of the drawn counts."""

    def __init__(self, kills: int, total: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.counts = sorted(self.random.sample(range(1, total - 4), kills))
        self.done, self.killed = 0, 0

    def __call__(self, event: Event) -> None:
        self.done += event.kind == "done"
        while self.counts and self.counts[0] <= self.done:
            if not self._kill_one():
                break
            self.counts.pop(0)

    def _kill_one(self) -> bool:
        busy = children("ray::_WarmWorker.run", "ray::run_call", "ray::_WarmWorker")
        if busy:
            os.kill(self.random.choice(busy).pid, signal.SIGKILL)
            self.killed += 1
        return bool(busy)


def test_a_killed_head_is_an_error_in_time_and_the_run_goes_on_elsewhere(tmp_path: Path) -> None:
    count, wait_s = 120, 5.0
    expected = in_series(tmp_path / "series", count)
    plan, ledger = copying(tmp_path, count, seconds=0.4)
    engine = open_engine("ray", 2, wait_s=wait_s)
    killed: list[float] = []

    def behead(event: Event) -> None:
        if event.done == 6 and not killed:
            for head in children("gcs_server"):
                head.kill()
            killed.append(time.monotonic())

    try:
        with ledger, pytest.raises(UnreachableError, match=r"does not answer.*--resume"):
            run_plan(plan, engine, ledger=ledger, on_event=behead)
        assert time.monotonic() - killed[0] < wait_s + 40  # all tasks together take 24 s, on any machine
    finally:
        engine.close()
    assert not children("raylet", "gcs_server")
    plan, ledger = copying(tmp_path, count)
    skipped: list[int] = []

    def note(event: Event) -> None:
        skipped.append(event.done * (event.kind == "skipped"))

    run_plan(plan, open_engine("serial"), ledger=ledger, on_event=note)
    assert max(skipped) >= 6
    assert written(tmp_path) == expected


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = open_engine("ray", 2)
    yield engine
    engine.close()


@pytest.mark.parametrize(
    ("warm", "kills"),
    [(True, 20), (False, 5), pytest.param(False, 20, marks=pytest.mark.nightly)],
    ids=["warm workers", "plain tasks", "plain tasks, many"],
)
def test_killed_workers_change_no_byte(warm: bool, kills: int, engine: Engine, tmp_path: Path) -> None:
    count, started, seed = 12 * kills, time.monotonic(), random.randrange(10**6)
    expected = in_series(tmp_path / "series", count)
    plan, ledger = copying(tmp_path, count, seconds=0.02)
    killer = Killer(kills, count, seed)
    run_plan(replace(plan, needs=Needs(warm=warm)), engine, ledger=ledger, on_event=killer)
    assert written(tmp_path) == expected, f"seed {seed}"
    assert killer.killed == kills, f"seed {seed}: {killer.killed} kills"
    assert time.monotonic() - started < 500, f"seed {seed}"
