"""What every engine must do: inherit `EngineSuite`, give `open_engine`, receive the tests.

Faults are a table: which attempt of which task fails, dies or sleeps. Attempts are counted in files, because a task may
run in another process.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from sketchscale.engine.base import Engine, Event, Needs, Plan, RetryPolicy, run_plan
from sketchscale.errors import BudgetError, InputError, SetupError, TaskError
from sketchscale.io.stores.settings import StorageSettings, storage_settings, using


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    number: int

    @property
    def key(self) -> str:
        return f"{self.number:04d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """`faults[(task, attempt)]` is what happens: raise, input, bug, die, or sleep."""

    folder: str
    faults: dict[tuple[int, int], str] = field(default_factory=dict)


def attempt_of(step: Step, folder: str) -> int:
    """Which run of this task this is; one file per run."""
    for attempt in range(1, 99):
        try:
            os.close(os.open(Path(folder) / f"{step.key}.{attempt}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        return attempt
    raise AssertionError("a task ran 98 times")


def squared(step: Step, scenario: Scenario) -> int:
    fault = scenario.faults.get((step.number, attempt_of(step, scenario.folder)))
    if fault == "raise":
        raise OSError("storage hiccup")
    if fault == "input":
        raise InputError("image is not one")
    if fault == "bug":
        raise ZeroDivisionError("a bug")
    if fault == "die":
        os._exit(9)
    if fault == "sleep":
        time.sleep(180)
    return step.number**2


def napped(step: Step, scenario: Scenario) -> int:
    """As `squared`, but it takes a fifth of a second and returns the worker's process id."""
    squared(step, scenario)
    time.sleep(0.2)
    return os.getpid()


def met(step: Step, scenario: Scenario) -> int:
    """Waits until two processes have come, which a machine may be slow to start; returns the worker's process id."""
    folder = Path(scenario.folder)
    (folder / f"came.{os.getpid()}").touch()
    deadline = time.monotonic() + 60
    while len(list(folder.glob("came.*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    return os.getpid()


def warmed(step: Step, scenario: Scenario) -> int:
    """A task that needs something heavy, which its worker keeps; returns the worker's process id."""
    with _LOADING:
        _heavy(scenario.folder)
    time.sleep(0.05)
    return os.getpid()


_LOADING = threading.Lock()
"""As where networks are loaded: a warm worker may begin several tasks at once."""


@functools.lru_cache(maxsize=1)
def _heavy(folder: str) -> None:
    """Each time that it is made leaves a file."""
    (Path(folder) / f"made.{os.getpid()}.{time.monotonic_ns()}").touch()


def endpoint_of(step: Step, scenario: Scenario) -> str | None:
    """Which server a task would ask."""
    return storage_settings().endpoint


def seconds_to_start(engine: Engine) -> float:
    """What new workers take before their first task is done, on this machine as busy as it is."""
    engine.restart()
    started = time.monotonic()
    engine.submit(abs, -1).result(timeout=120)
    return time.monotonic() - started


def wait_for_file(path: Path, patience_s: float = 60) -> None:
    """Until a task has started."""
    deadline = time.monotonic() + patience_s
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} did not start within {patience_s} s"
        time.sleep(0.05)


class Notes:
    """A ledger in memory."""

    def __init__(self) -> None:
        self.results: dict[str, Any] = {}

    def finished(self, stage: str) -> dict[str, Any]:
        return dict(self.results)

    def record(self, stage: str, key: str, result: Any) -> None:
        self.results[key] = result


def plan_of(count: int, folder: Path, **faults: Any) -> Plan[Step]:
    steps = tuple(Step(number=i) for i in range(count))
    return Plan(stage="square", fn=squared, tasks=steps, config=Scenario(folder=str(folder), **faults), task_bytes=10)


class EngineSuite:
    """Order, retries, ledger, budget, progress: the same on every engine."""

    def open_engine(self) -> Engine:
        raise NotImplementedError

    @pytest.fixture
    def engine(self) -> Iterator[Engine]:
        engine = self.open_engine()
        yield engine
        engine.close()

    def test_results_come_in_task_order(self, engine: Engine, tmp_path: Path) -> None:
        assert run_plan(plan_of(9, tmp_path), engine) == [i**2 for i in range(9)]

    def test_an_empty_plan_has_no_results(self, engine: Engine, tmp_path: Path) -> None:
        assert run_plan(plan_of(0, tmp_path), engine) == []

    def test_storage_hiccups_are_tried_again(self, engine: Engine, tmp_path: Path) -> None:
        plan = plan_of(4, tmp_path, faults={(2, 1): "raise", (2, 2): "raise"})
        assert run_plan(plan, engine) == [0, 1, 4, 9]
        assert (tmp_path / "0002.3").exists()

    def test_a_task_that_never_succeeds_is_named(self, engine: Engine, tmp_path: Path) -> None:
        plan = plan_of(4, tmp_path, faults={(2, i): "raise" for i in (1, 2, 3)})
        with pytest.raises(TaskError, match=r"'square', task 0002: OSError: storage hiccup \(attempt 3 of 3\)"):
            run_plan(plan, engine)

    def test_bad_input_and_bugs_are_not_tried_again(self, engine: Engine, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="image is not one"):
            run_plan(plan_of(3, tmp_path, faults={(1, 1): "input"}), engine)
        with pytest.raises(TaskError, match="ZeroDivisionError"):
            run_plan(plan_of(3, tmp_path, faults={(2, i): "bug" for i in (1, 2)}), engine)
        assert not (tmp_path / "0001.3").exists()

    def test_finished_tasks_are_skipped_and_the_rest_recorded(self, engine: Engine, tmp_path: Path) -> None:
        notes = Notes()
        notes.record("square", "0001", 111)
        assert run_plan(plan_of(3, tmp_path), engine, ledger=notes) == [0, 111, 4]
        assert notes.results == {"0000": 0, "0001": 111, "0002": 4}
        assert not (tmp_path / "0001.1").exists()

    def test_a_stopped_run_goes_on_where_it_was(self, engine: Engine, tmp_path: Path) -> None:
        notes = Notes()
        with pytest.raises(InputError):
            run_plan(plan_of(6, tmp_path, faults={(4, 1): "input"}), engine, ledger=notes)
        done = set(notes.results)
        assert run_plan(plan_of(6, tmp_path), engine, ledger=notes) == [i**2 for i in range(6)]
        assert all(not (tmp_path / f"{key}.2").exists() for key in done)

    def test_a_plan_over_the_budget_is_refused_before_it_starts(self, engine: Engine, tmp_path: Path) -> None:
        plan = plan_of(8, tmp_path)
        with pytest.raises(BudgetError, match="fewer --workers"):
            run_plan(plan, engine, budget_bytes=10 * engine.workers - 1)
        assert not list(tmp_path.iterdir())
        run_plan(plan, engine, budget_bytes=10 * engine.workers)

    def test_progress_counts_every_task_once(self, engine: Engine, tmp_path: Path) -> None:
        events: list[Event] = []
        run_plan(plan_of(5, tmp_path, faults={(3, 1): "raise"}), engine, on_event=events.append)
        kinds = [event.kind for event in events]
        assert kinds.count("done") == 5
        assert kinds.count("retry") == 1
        assert (kinds[0], kinds[-1], events[-1].done) == ("start", "end", 5)


class ProcessSuite(EngineSuite):
    """More, for engines whose workers are other processes."""

    def test_a_worker_that_dies_costs_one_attempt(self, engine: Engine, tmp_path: Path) -> None:
        assert run_plan(plan_of(4, tmp_path, faults={(1, 1): "die"}), engine) == [0, 1, 4, 9]

    def test_a_worker_that_dies_while_nothing_runs_ends_no_run(self, engine: Engine, tmp_path: Path) -> None:
        os.kill(engine.submit(os.getpid).result(timeout=60), signal.SIGKILL)
        time.sleep(0.5)  # until the engine knows, if it looks
        assert run_plan(plan_of(4, tmp_path), engine) == [0, 1, 4, 9]

    def test_a_task_that_always_kills_its_worker_is_an_error(self, engine: Engine, tmp_path: Path) -> None:
        plan = plan_of(1, tmp_path, faults={(0, i): "die" for i in (1, 2, 3)})
        with pytest.raises(TaskError, match=r"task 0000: .*its worker died \(attempt 3 of 3\)"):
            run_plan(plan, engine)

    def test_a_task_past_its_deadline_is_stopped_and_run_again(self, engine: Engine, tmp_path: Path) -> None:
        plan = plan_of(3, tmp_path, faults={(0, 1): "sleep"})
        deadline_s = max(8.0, 4 * seconds_to_start(engine))
        assert run_plan(plan, engine, retry=RetryPolicy(deadline_s=deadline_s)) == [0, 1, 4]

    def test_several_workers_share_the_tasks(self, engine: Engine, tmp_path: Path) -> None:
        used = set(run_plan(replace(plan_of(30, tmp_path), fn=met), engine))
        assert 1 < len(used) <= engine.workers
        assert os.getpid() not in used

    def test_what_a_worker_keeps_is_made_once_in_each(self, engine: Engine, tmp_path: Path) -> None:
        used = set(run_plan(replace(plan_of(20, tmp_path), fn=warmed, needs=Needs(warm=True)), engine))
        assert len(list(tmp_path.glob("made.*"))) == len(used)

    def test_cancelled_tasks_that_still_wait_are_never_run(self, engine: Engine, tmp_path: Path) -> None:
        plan = plan_of(40, tmp_path)
        futures = [engine.submit(napped, task, plan.config) for task in plan.tasks]
        futures[0].result(timeout=60)
        for future in reversed(futures):
            future.cancel()
        started = -1
        while started < (started := len(list(tmp_path.iterdir()))):
            time.sleep(2)
        assert started < 20

    def test_workers_have_the_settings_of_the_job_that_they_work_for(self, engine: Engine, tmp_path: Path) -> None:
        for endpoint in ("http://one:1", "http://two:2", "http://one:1"):
            around = functools.partial(using, StorageSettings(endpoint=endpoint))
            assert run_plan(replace(plan_of(6, tmp_path), fn=endpoint_of), engine, around=around) == [endpoint] * 6
        assert storage_settings().endpoint is None

    def test_a_failed_run_leaves_the_engine_fit_for_the_next(self, engine: Engine, tmp_path: Path) -> None:
        with pytest.raises(InputError):
            run_plan(replace(plan_of(20, tmp_path, faults={(1, 1): "input"}), fn=napped), engine)
        (tmp_path / "next").mkdir()
        assert run_plan(plan_of(5, tmp_path / "next"), engine) == [i**2 for i in range(5)]

    def test_a_late_task_takes_others_down_only_when_the_engine_says_so(self, engine: Engine, tmp_path: Path) -> None:
        scenario = Scenario(folder=str(tmp_path), faults={(0, 1): "sleep"})
        late = engine.submit(squared, Step(number=0), scenario)
        wait_for_file(tmp_path / "0000.1")
        other = engine.submit(squared, Step(number=1), scenario)
        everything = engine.restart((late,))
        if not everything:
            assert other.result(timeout=60) == 1
            assert not (tmp_path / "0001.2").exists()
        again = engine.submit(squared, Step(number=0), scenario)
        assert again.result(timeout=60) == 0


class ClusterSuite(ProcessSuite):
    """More, for engines that join clusters. One engine for all tests: what one test breaks, the next one finds."""

    def open_engine(self, **options: Any) -> Engine:
        """With further fields of `EngineOptions`."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Iterator[Engine]:
        engine = cls().open_engine()
        yield engine
        engine.close()

    def test_a_gpu_that_no_worker_has_is_an_error_and_no_wait(self, tmp_path: Path) -> None:
        engine = self.open_engine(gpus_per_worker=64)
        try:
            assert engine.submit(abs, -1).result(timeout=120) == 1  # by now it has started
            started = time.monotonic()
            with pytest.raises(SetupError, match=r"GPU.*to fix"):
                run_plan(replace(plan_of(2, tmp_path), needs=Needs(gpu=True)), engine)
            assert time.monotonic() - started < 45
            assert not list(tmp_path.iterdir())
            assert run_plan(plan_of(2, tmp_path), engine) == [0, 1]
        finally:
            engine.close()
