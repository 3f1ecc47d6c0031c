"""Dask workers and schedulers are killed while a plan runs: the same bytes as in series, or one error in time.

What is killed when is drawn from a seed, which a failing test prints.
"""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from sketchscale.config import Execution, SegmentOptions
from sketchscale.engine import open_engine
from sketchscale.engine.base import Engine, Event, Plan, RetryPolicy, run_plan
from sketchscale.errors import UnreachableError
from sketchscale.io.runs.ledger import StoreLedger
from sketchscale.workflow.segment.segment import segment
from tests.chaos.copying import copying, in_series, written
from tests.engine.dask_processes import scheduler_process, worker_process
from tests.pipeline import draw_nuclei, store_image
from tests.workflow.finished import files_of

pytestmark = pytest.mark.slow

distributed = pytest.importorskip("distributed")


class Killer:
    """Kills a random worker each time that progress passes one of the drawn counts; a listener of events.

    Args:
        kills: how many.
        total: tasks of the stages that it listens to; the last kill comes before the end of them.
    """

    def __init__(self, kills: int, total: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.counts = sorted(self.random.sample(range(1, total - 4), kills))
        self.done = 0
        self.killed: list[int] = []
        self.threads: list[threading.Thread] = []

    def __call__(self, event: Event) -> None:
        self.done += event.kind == "done"
        while self.counts and self.counts[0] <= self.done:
            self.counts.pop(0)
            self.threads.append(threading.Thread(target=self._kill, args=(self.random.uniform(0, 0.3),)))
            self.threads[-1].start()

    def _kill(self, delay: float) -> None:
        time.sleep(delay)
        while not self._killed_one(own_workers()):
            time.sleep(0.02)

    def _killed_one(self, workers: list[psutil.Process]) -> bool:
        for worker in self.random.sample(workers, len(workers)):
            with suppress(psutil.NoSuchProcess):
                if worker.pid not in self.killed:
                    worker.kill()
                    self.killed.append(worker.pid)
                    return True
        return False

    def finish(self) -> None:
        for thread in self.threads:
            thread.join()


SLACK_S = 40
"""Of a busy machine, beside the time that the engine may wait; without an end to waiting, a run would last for ever."""


def own_workers() -> list[psutil.Process]:
    """Worker processes of the clusters which this process started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if any("spawn_main" in word for word in process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def within(limit_s: float, started: float) -> bool:
    return time.monotonic() - started < limit_s


@contextmanager
def closing(engine: Engine) -> Iterator[Engine]:
    try:
        yield engine
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("kills", "count", "limit_s"), [(20, 150, 400), pytest.param(100, 900, 600, marks=pytest.mark.nightly)]
)
def test_killed_workers_change_no_byte(tmp_path: Path, kills: int, count: int, limit_s: float) -> None:
    expected = in_series(tmp_path / "serial", count)
    (tmp_path / "dask").mkdir()
    plan, ledger = copying(tmp_path / "dask", count, seconds=0.02)
    seed = random.randrange(10**6)
    killer = Killer(kills, count, seed)
    started = time.monotonic()
    with closing(open_engine("dask", 3)) as engine:
        run_plan(plan, engine, ledger=ledger, on_event=killer)
        killer.finish()
    assert within(limit_s, started), f"seed {seed}"
    assert len(killer.killed) == kills, f"seed {seed}"
    assert written(tmp_path / "dask") == expected, f"seed {seed}"


def test_a_killed_scheduler_is_an_error_in_time_and_the_run_goes_on_elsewhere(tmp_path: Path) -> None:
    expected = in_series(tmp_path / "serial", 60)
    (tmp_path / "dask").mkdir()
    plan, ledger = copying(tmp_path / "dask", 60, seconds=0.1)
    died: list[float] = []
    with scheduler_process() as (address, pid), worker_process(address), worker_process(address):
        wait_for_workers(address, 2)
        kill = at_half(60, lambda: died.append(end(pid)))
        with closing(open_engine("dask", address=address, wait_s=4)) as engine:
            error = error_of(plan, engine, ledger, kill)
        assert within(4 + SLACK_S, died[0])
    assert isinstance(error, UnreachableError)
    assert re.search(rf"{address} does not answer: .*in \d+ s.*--resume", str(error))
    finished = len(ledger.finished("copy"))
    assert 30 <= finished < 60
    with closing(open_engine("dask", 2)) as engine:
        run_plan(plan, engine, ledger=ledger)
    assert written(tmp_path / "dask") == expected


def test_a_cluster_of_ours_that_dies_is_an_error_in_time(tmp_path: Path) -> None:
    plan, ledger = copying(tmp_path, 40, seconds=0.1)
    died: list[float] = []
    kill = at_half(40, lambda: died.append(end(own_workers()[0].ppid())))
    with closing(open_engine("dask", 2, wait_s=4)) as engine:
        error = error_of(plan, engine, ledger, kill)
    assert within(4 + SLACK_S, died[0])
    assert isinstance(error, UnreachableError)


def test_a_scheduler_that_is_silent_for_a_while_costs_no_attempt(tmp_path: Path) -> None:
    plan, ledger = copying(tmp_path, 30, seconds=0.1)
    events: list[Event] = []
    with scheduler_process() as (address, pid), worker_process(address):

        def pause() -> None:
            os.kill(pid, signal.SIGSTOP)
            threading.Timer(3, os.kill, (pid, signal.SIGCONT)).start()

        half = at_half(30, pause)
        with closing(open_engine("dask", address=address, wait_s=30)) as engine:
            run_plan(plan, engine, ledger=ledger, on_event=lambda event: (events.append(event), half(event))[1])
    assert "retry" not in [event.kind for event in events]


def test_a_frozen_worker_is_replaced_at_the_deadline(tmp_path: Path) -> None:
    plan, ledger = copying(tmp_path, 40, seconds=0.1)
    started = time.monotonic()
    freeze = at_half(40, lambda: own_workers()[0].suspend())
    with closing(open_engine("dask", 2)) as engine:
        results = run_plan(plan, engine, ledger=ledger, on_event=freeze, retry=RetryPolicy(deadline_s=15))
    assert len(results) == 40
    assert within(200, started)


@pytest.mark.nightly
def test_the_real_pipeline_survives_twenty_kills(tmp_path: Path) -> None:
    for name in ("serial", "dask"):
        (tmp_path / name).mkdir()
        store_image(tmp_path / name / "image.zarr", draw_nuclei((900, 1100)), chunk=128)
    options = SegmentOptions(model="nuclei-fluo", tile=128)
    events: list[Event] = []
    segment(str(tmp_path / "serial/image.zarr"), options, Execution(engine="serial", block=256), events.append)
    seed = random.randrange(10**6)
    killer = Killer(20, sum(event.kind == "done" for event in events) * 9 // 10, seed)
    started = time.monotonic()
    execution = Execution(engine="dask", workers=2, block=256, attempts=40)
    segment(str(tmp_path / "dask/image.zarr"), options, execution, killer)
    killer.finish()
    assert within(900, started), f"seed {seed}"
    assert len(killer.killed) == 20, f"seed {seed}"
    labels = "image.zarr/labels/nuclei"
    assert files_of(tmp_path / "dask" / labels) == files_of(tmp_path / "serial" / labels), f"seed {seed}"


def error_of(plan: Plan[Any], engine: Engine, ledger: StoreLedger, listen: Callable[[Event], None]) -> Exception:
    with pytest.raises(Exception, match=r".") as caught:
        run_plan(plan, engine, ledger=ledger, on_event=listen)
    return caught.value


def wait_for_workers(address: str, count: int) -> None:
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=200)


def at_half(total: int, act: Callable[[], object]) -> Callable[[Event], None]:
    """A listener that acts once, when half of the tasks are done."""

    def listen(event: Event) -> None:
        if event.kind == "done" and event.done == total // 2:
            act()

    return listen


def end(pid: int) -> float:
    """Kill a process; the time when it died."""
    os.kill(pid, signal.SIGKILL)
    return time.monotonic()
