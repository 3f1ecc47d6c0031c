"""The loop on an engine that follows a script: who is blamed for dead workers, what waits for what, what ends a run."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from sketchscale.engine import open_engine
from sketchscale.engine.base import Event, Json, Needs, Plan, RetryPolicy, StageNotes, WorkerLost, run_plan
from sketchscale.errors import TaskError, UnreachableError


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    number: int

    @property
    def key(self) -> str:
        return f"{self.number:04d}"


@dataclass
class Call:
    """A task that the engine holds."""

    number: int
    future: Future[Json]
    work: Callable[[], Json]


Fate = Callable[[tuple[int, ...]], Mapping[int, BaseException | None]]
"""From the numbers of the running tasks to what happens to some of them: an error, or None, the end of its work."""


class ScriptedEngine:
    """Workers that take tasks in order; what becomes of the running ones is up to a function."""

    def __init__(self, fate: Fate, workers: int = 3, in_flight: int | None = None) -> None:
        self.workers, self.in_flight, self.fate = workers, in_flight or 2 * workers, fate
        self.waiting: deque[Call] = deque()
        self.running: list[Call] = []
        self.submitted: list[int] = []
        self.most, self.restarts, self.over = 0, 0, False
        self.turn = threading.Condition()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def submit(self, fn: Callable[..., Json], /, *args: Any, needs: Needs | None = None) -> Future[Json]:
        step = next(arg for arg in args if isinstance(arg, Step))
        call = Call(step.number, Future(), lambda: fn(*args))
        with self.turn:
            self.waiting.append(call)
            self.submitted.append(step.number)
            self.most = max(self.most, len(self.waiting) + len(self.running))
            self.turn.notify()
        return call.future

    def restart(self, late: Collection[Future[Json]] = ()) -> bool:
        with self.turn:
            self.restarts += 1
            self.waiting.clear()
            self.running.clear()
        return True

    def close(self) -> None:
        with self.turn:
            self.over = True
            self.turn.notify()
        self.thread.join(10)

    def _work(self) -> None:
        while True:
            with self.turn:
                self.turn.wait_for(lambda: self.waiting or self.running or self.over)
                if self.over:
                    return
            time.sleep(0.001)  # so that the loop has submitted what it wants to
            with self.turn:
                while self.waiting and len(self.running) < self.workers:
                    self.running.append(self.waiting.popleft())
                ends = self.fate(tuple(call.number for call in self.running))
                ended = [call for call in self.running if call.number in ends]
                self.running = [call for call in self.running if call.number not in ends]
            for call in ended:
                self._end(call, ends[call.number])

    def _end(self, call: Call, error: BaseException | None) -> None:
        if not call.future.set_running_or_notify_cancel():
            return
        try:
            if error is not None:
                raise error
            result = call.work()
        except Exception as raised:
            call.future.set_exception(raised)
        else:
            call.future.set_result(result)


@contextmanager
def scripted(fate: Fate, **kind: Any) -> Iterator[ScriptedEngine]:
    engine = ScriptedEngine(fate, **kind)
    yield engine
    engine.close()


def plan_of(count: int, fn: Callable[[Step, Any], Json] = lambda step, config: step.number) -> Plan[Step]:
    return Plan(stage="count", fn=fn, tasks=tuple(Step(number=i) for i in range(count)))


def done(running: tuple[int, ...]) -> dict[int, None]:
    return dict.fromkeys(running)


def broken(running: tuple[int, ...]) -> dict[int, BaseException]:
    """The pool of the standard library: one dead process, and every future fails."""
    return {number: BrokenProcessPool("a child died") for number in running}


def test_the_last_may_be_the_first_and_no_more_is_in_flight_than_the_engine_wants() -> None:
    with scripted(lambda running: {max(running): None}, workers=4, in_flight=7) as engine:
        assert run_plan(plan_of(50), engine) == list(range(50))
    assert engine.most == 7


def test_a_task_that_always_breaks_the_pool_is_found_among_others() -> None:
    breaks: list[tuple[int, ...]] = []

    def fate(running: tuple[int, ...]) -> Mapping[int, BaseException | None]:
        if 5 in running:
            breaks.append(running)
            return broken(running)
        return {running[0]: None}

    with scripted(fate) as engine, pytest.raises(TaskError, match=r"task 0005: .*worker died \(attempt 3 of 3\)"):
        run_plan(plan_of(12), engine)
    assert [len(running) for running in breaks] == [3, 3, 1, 1, 1]
    assert len(engine.submitted) < 12 + 6 * 5


def test_a_task_that_always_loses_its_own_worker_is_found_where_the_engine_knows_whose_it_was() -> None:
    def fate(running: tuple[int, ...]) -> Mapping[int, BaseException | None]:
        return {number: WorkerLost("gone") if number == 5 else None for number in running}

    with scripted(fate) as engine, pytest.raises(TaskError, match=r"task 0005: WorkerLost: gone \(attempt 3 of 3\)"):
        run_plan(plan_of(30), engine)
    assert Counter(engine.submitted)[5] == 5


@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_twenty_workers_lost_by_accident_end_no_run(seed: int, pool: bool) -> None:
    chance, left = random.Random(seed), Counter(kills=20)

    def fate(running: tuple[int, ...]) -> Mapping[int, BaseException | None]:
        if running and left["kills"] and chance.random() < 0.3:
            left["kills"] -= 1
            return broken(running) if pool else {chance.choice(running): WorkerLost("preempted")}
        return {number: None for number in running if chance.random() < 0.5}

    with scripted(fate) as engine:
        assert run_plan(plan_of(200), engine) == list(range(200))
    assert left["kills"] == 0


def test_one_attempt_is_one_attempt() -> None:
    with scripted(broken) as engine, pytest.raises(TaskError, match=r"attempt 1 of 1"):
        run_plan(plan_of(4), engine, retry=RetryPolicy(attempts=1))


def test_storage_that_fails_for_one_task_makes_no_other_wait() -> None:
    ended: list[str] = []
    failures = Counter[int]()

    def fn(step: Step, config: Any) -> int:
        failures[step.number] += 1
        if step.number == 0 and failures[0] < 3:
            raise OSError("503")
        return step.number

    def note(event: Event) -> None:
        if event.kind == "done":
            ended.append(event.key)

    started = time.monotonic()
    with scripted(done) as engine:
        assert run_plan(plan_of(30, fn), engine, on_event=note, retry=RetryPolicy(pause_s=0.3)) == list(range(30))
    assert ended[-1] == "0000"
    assert time.monotonic() - started >= 0.9


def test_storage_that_never_answers_ends_after_the_attempts() -> None:
    def fn(step: Step, config: Any) -> int:
        raise OSError("503")

    with scripted(done) as engine, pytest.raises(TaskError, match=r"OSError: 503 \(attempt 4 of 4\)"):
        run_plan(plan_of(3, fn), engine, retry=RetryPolicy(attempts=4, pause_s=0.01))


def test_a_task_that_waits_behind_others_is_not_late() -> None:
    since: dict[int, float] = {}

    def fate(running: tuple[int, ...]) -> Mapping[int, BaseException | None]:
        return {n: None for n in running if time.monotonic() - since.setdefault(n, time.monotonic()) > 0.1}

    with scripted(fate, workers=1, in_flight=40) as engine:
        policy = RetryPolicy(deadline_s=3, attempts=1)
        assert run_plan(plan_of(40), engine, retry=policy) == list(range(40))
    assert engine.restarts == 0


def test_a_task_that_hangs_is_late_and_those_beside_it_spend_no_attempt() -> None:
    hangs = Counter({2: 2})
    retried: list[str] = []

    def fate(running: tuple[int, ...]) -> Mapping[int, BaseException | None]:
        return {n: None for n in running if n != 2 or hangs[2] <= 0}

    def note(event: Event) -> None:
        if event.kind == "retry":
            retried.append(event.key)
            hangs[2] -= 1

    with scripted(fate) as engine:
        assert run_plan(plan_of(6), engine, on_event=note, retry=RetryPolicy(deadline_s=2)) == list(range(6))
    assert retried == ["0002", "0002"]


def test_a_cluster_that_is_gone_ends_the_run_at_once_with_the_command_to_go_on() -> None:
    error = UnreachableError.after("tcp://10.0.0.1:8786", "refused", attempts=9, seconds=60)

    def fate(running: tuple[int, ...]) -> Mapping[int, BaseException | None]:
        return {number: error if number == 4 else None for number in running}

    started = time.monotonic()
    with scripted(fate) as engine, pytest.raises(UnreachableError, match=r"10\.0\.0\.1.*with --resume"):
        run_plan(plan_of(1000), engine)
    assert len(engine.submitted) < 20
    assert time.monotonic() - started < 10


class Shared:
    """A ledger that workers write to, in memory; notes which thread did what."""

    def __init__(self) -> None:
        self.records: dict[str, Json] = {}
        self.writers: set[int] = set()
        self.finished_stages: list[str] = []

    def finished(self, stage: str) -> Mapping[str, Json]:
        return self.records

    def record(self, stage: str, key: str, result: Json) -> None:
        self.records[key] = result
        self.writers.add(threading.get_ident())

    def check(self) -> None:
        return None

    def begin(self, stage: str, total: int) -> StageNotes:
        return Notes(self, stage, dict(self.records))


@dataclass
class Notes:
    ledger: Shared
    stage: str
    finished: Mapping[str, Json]

    def add(self, key: str, result: Json) -> None:
        assert self.ledger.records[key] == result  # it was recorded before the driver heard of it

    def end(self) -> None:
        self.ledger.finished_stages.append(self.stage)


def test_workers_write_the_records_and_the_driver_hears_of_them_later() -> None:
    ledger = Shared()
    ledger.records["0003"] = 33
    with scripted(done) as engine:
        assert run_plan(plan_of(6), engine, ledger=ledger) == [0, 1, 2, 33, 4, 5]
    assert 3 not in engine.submitted
    assert ledger.writers
    assert threading.get_ident() not in ledger.writers
    assert ledger.finished_stages == ["count"]


def test_an_interrupt_stops_taking_tasks_and_keeps_what_ended() -> None:
    ledger = Shared()

    def interrupt(event: Event) -> None:
        if event.done == 10:
            raise KeyboardInterrupt

    with scripted(lambda running: {running[0]: None}) as engine, pytest.raises(KeyboardInterrupt):
        run_plan(plan_of(1000), engine, ledger=ledger, on_event=interrupt)
    assert 10 <= len(ledger.records) <= 10 + engine.in_flight
    assert ledger.finished_stages == []


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.nightly)])
def test_the_loop_costs_the_same_per_task_whatever_their_number_and_how_many_are_in_flight(count: int) -> None:
    def cost(tasks: int) -> float:
        before = time.process_time()
        run_plan(plan_of(tasks), open_engine("serial"))
        return (time.process_time() - before) / tasks

    assert cost(count) < 5 * cost(2000) + 50e-6
    crowd = Crowd(count // 10)
    before = time.process_time()
    run_plan(plan_of(count // 5), crowd)
    assert (time.process_time() - before) / (count // 5) < 500e-6


class Crowd:
    """As many workers as it is told, whose tasks end when all have one."""

    def __init__(self, workers: int) -> None:
        self.workers = self.in_flight = workers
        self.held: list[tuple[Future[Json], Json]] = []

    def submit(self, fn: Callable[..., Json], /, *args: Any, needs: Needs | None = None) -> Future[Json]:
        future: Future[Json] = Future()
        self.held.append((future, fn(*args)))
        if len(self.held) == self.workers:
            held, self.held = self.held, []
            for one, result in held:
                one.set_result(result)
        return future

    def restart(self, late: Collection[Future[Json]] = ()) -> bool:
        return True

    def close(self) -> None:
        return None
