"""Plans, and the one loop that runs them on any engine.

A *plan* is data: a function, its tasks, one configuration, and the memory a task declares. An *engine* turns a task
into a future and knows nothing else. Everything between (order, bounded in-flight work, retries, deadlines, progress,
the ledger of finished tasks) happens here, once, so that every engine has it alike.

Guarantees of `run_plan`:
  * results come in task order, whatever order the tasks finished in;
  * at most `engine.in_flight` tasks are in flight, and the work of the loop per task does not grow with their number,
    so a plan of a million tasks costs the memory of its keys and results;
  * a task in the ledger is not run again; it is recorded only after its function returned, by the worker that ran it
    where the ledger is a `SharedLedger`;
  * a task may run more than once (a worker died, a deadline passed): functions are idempotent, by contract;
  * a plan over the memory budget is refused before the first task;
  * storage errors are tried again after a short pause, in which other tasks go on.

Who is to blame for a dead worker. A task that always kills its worker must end in an error, and one that was hit by
accident, where machines come and go, must not. Where several tasks were running, such a loss counts against none; but a
task that was lost in company `attempts - 1` times is put aside until all others are done, and then runs alone. A loss
alone counts, and after `attempts` of these the run ends. Each worker that died in company without the task (up to ten)
excuses one more loss alone. With three attempts a task has to be hit five times on a calm cluster.

A deadline counts from when a worker can have taken the task: the oldest `engine.workers` tasks in flight are running,
those behind them wait.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from sketchscale.engine.cancelling import can_be_cancelled, check_cancelled
from sketchscale.engine.plan import (
    Engine,
    EngineOptions,
    Event,
    Json,
    Ledger,
    Needs,
    NoLedger,
    Plan,
    SharedLedger,
    StageNotes,
    Task,
    TaskT,
    WorkerLost,
)
from sketchscale.errors import BudgetError, SketchscaleError, TaskError, TaskTimeoutError

__all__ = [
    "Engine",
    "EngineOptions",
    "Event",
    "Json",
    "Ledger",
    "Needs",
    "NoLedger",
    "Plan",
    "RetryPolicy",
    "SharedLedger",
    "StageNotes",
    "Task",
    "WorkerLost",
    "check_budget",
    "run_plan",
]

_LONGEST_PAUSE_S = 10.0
_LOOK_S = 0.25
_MOST_EXCUSES = 10
_MISSING: Any = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How patient the loop is.

    Attributes:
        attempts: how often a task may run in all when storage fails, it is late, or its worker dies under it alone.
        deadline_s: of one attempt; None waits for ever. Threads cannot be stopped: use processes where it matters.
        retryable: exceptions worth another attempt; a SketchscaleError, such as bad input, never is.
        pause_s: before the second attempt after such an exception; doubles with each, up to 10 s.
    """

    attempts: int = 3
    deadline_s: float | None = None
    retryable: tuple[type[Exception], ...] = (OSError,)
    pause_s: float = 0.2


@dataclass(slots=True)
class _Flight:
    """A task under way.

    Attributes:
        attempt: which one of those that count this is, from 1.
        losses: how often its worker died while other tasks were running.
        started: when a worker can have taken it.
    """

    position: int
    attempt: int = 1
    losses: int = 0
    started: float = 0.0


def _ignore(event: Event) -> None:
    return None


def run_plan(
    plan: Plan[TaskT],
    engine: Engine,
    *,
    ledger: Ledger | None = None,
    on_event: Callable[[Event], None] = _ignore,
    retry: RetryPolicy | None = None,
    budget_bytes: int | None = None,
    around: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> list[Json]:
    """Run every task of a plan that the ledger does not have; results in task order.

    Args:
        around: picklable; a worker runs and records each task inside what this gives: settings of the job.

    Raises:
        BudgetError: the plan declares more than `budget_bytes`; nothing was started.
        Cancelled: the job was cancelled; see engine.cancelling.
        TaskError: a task failed for good; names stage and task. A SketchscaleError of the task, or of an engine that
            lost its cluster, is raised as it is.
    """
    check_budget(plan, engine.workers, budget_bytes)
    return _Loop(plan, engine, ledger or NoLedger(), on_event, retry or RetryPolicy(), around).run()


def check_budget(plan: Plan[TaskT], workers: int, budget_bytes: int | None) -> None:
    """Refuse a plan that declares more memory than it may use.

    Raises:
        BudgetError: with the setting that would fix it.
    """
    peak = plan.peak_bytes(workers)
    if budget_bytes is not None and peak > budget_bytes:
        raise BudgetError(
            f"stage {plan.stage!r} declares {peak / 1e9:.2f} GB on {workers} workers; "
            f"expected: at most {budget_bytes / 1e9:.2f} GB; "
            f"to fix: a smaller --block, fewer --workers, or a larger --memory"
        )


def _run_inside(around: Callable[[], AbstractContextManager[None]], fn: Callable[..., Json], *args: Any) -> Json:
    """What a worker does for a job that has settings."""
    with around():
        return fn(*args)


def _run_and_record(fn: Callable[..., Json], task: Task, config: Any, stage: str, ledger: SharedLedger) -> Json:
    """What a worker does: the task, then its record."""
    ledger.check()
    result = fn(task, config)
    ledger.record(stage, task.key, result)
    return result


class _DriverNotes:
    """Records written by the driver: for ledgers in memory."""

    def __init__(self, ledger: Ledger, stage: str) -> None:
        self.ledger, self.stage = ledger, stage
        self.finished: Mapping[str, Json] = ledger.finished(stage)

    def add(self, key: str, result: Json) -> None:
        self.ledger.record(self.stage, key, result)

    def end(self) -> None:
        return None


class _Loop:
    """The state of one `run_plan` call."""

    def __init__(
        self,
        plan: Plan[Any],
        engine: Engine,
        ledger: Ledger,
        on_event: Callable[[Event], None],
        retry: RetryPolicy,
        around: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.plan, self.engine, self.ledger, self.on_event, self.retry = plan, engine, ledger, on_event, retry
        self.around = around
        self.shared = ledger if isinstance(ledger, SharedLedger) else None
        self.results: list[Json] = [_MISSING] * len(plan.tasks)
        self.done = 0
        self.running: dict[Future[Json], _Flight] = {}
        self.queued: dict[Future[Json], _Flight] = {}
        self.answers: SimpleQueue[Future[Json]] = SimpleQueue()
        self.paused: list[tuple[float, int, _Flight]] = []
        self.turn = itertools.count()
        self.suspects: deque[_Flight] = deque()
        self.alone = False
        self.deaths = 0

    @property
    def in_flight(self) -> int:
        return len(self.running) + len(self.queued)

    def run(self) -> list[Json]:
        check_cancelled()
        notes = self._begin()
        queue = (i for i, result in enumerate(self.results) if result is _MISSING)
        self._say("start")
        try:
            while self._submit_some(queue):
                self._collect(notes)
                check_cancelled()
        finally:
            for future in (*self.running, *self.queued):
                future.cancel()
        notes.end()
        self._say("end")
        return self.results

    def _begin(self) -> StageNotes:
        stage, tasks = self.plan.stage, self.plan.tasks
        notes: StageNotes = self.shared.begin(stage, len(tasks)) if self.shared else _DriverNotes(self.ledger, stage)
        if finished := notes.finished:
            for position, task in enumerate(tasks):
                self.results[position] = finished.get(task.key, _MISSING)
                self.done += self.results[position] is not _MISSING
        if self.done:
            self._say("skipped")
        return notes

    def _submit_some(self, queue: Iterator[int]) -> bool:
        """Fill what may be in flight; whether anything is left to wait for."""
        while self.in_flight < self.engine.in_flight:
            flight = self._next(queue)
            if flight is None:
                break
            self._submit(flight)
        return bool(self.in_flight or self.paused or self.suspects)

    def _next(self, queue: Iterator[int]) -> _Flight | None:
        """What to submit now: what has paused, the next task, or at last a suspect alone."""
        if self.alone and self.in_flight:
            return None
        self.alone = False
        if self.paused and self.paused[0][0] <= time.monotonic():
            return heapq.heappop(self.paused)[2]
        position = next(queue, None)
        if position is not None:
            return _Flight(position)
        self.alone = bool(self.suspects and not self.in_flight and not self.paused)
        return self.suspects.popleft() if self.alone else None

    def _submit(self, flight: _Flight) -> None:
        plan, task = self.plan, self.plan.tasks[flight.position]
        call: tuple[Any, ...] = (plan.fn, task, plan.config)
        if self.shared is not None:
            call = (_run_and_record, *call, plan.stage, self.shared)
        future = self.engine.submit(_run_inside, self.around, *call, needs=plan.needs)
        self.queued[future] = flight
        self._promote()
        future.add_done_callback(self.answers.put)

    def _promote(self) -> None:
        """The clock of a task starts when a worker can have taken it."""
        while self.queued and len(self.running) < self.engine.workers:
            future = next(iter(self.queued))
            flight = self.running[future] = self.queued.pop(future)
            flight.started = time.monotonic()

    def _collect(self, notes: StageNotes) -> None:
        """Wait for answers, and act on each."""
        answers, alone = self._answers(), self.in_flight == 1
        if any(_broke_the_pool(future) for future in answers):
            self._replace_workers(notes, alone)
            return
        for future in answers:
            flight = self.running.pop(future, None) or self.queued.pop(future)
            self._settle(flight, future, notes, alone)
        self._promote()
        if not answers:
            self._expire()

    def _answers(self) -> list[Future[Json]]:
        """Futures that are done, at least one unless the time is over; those given up are left out."""
        answers: list[Future[Json]] = []
        with contextlib.suppress(Empty):
            answers.append(self.answers.get(timeout=self._patience()))
            while True:
                answers.append(self.answers.get_nowait())
        return [future for future in answers if future in self.running or future in self.queued]

    def _patience(self) -> float | None:
        """How long to wait: until the oldest task is late, a paused one may go on, or the job may be cancelled."""
        moments = [time.monotonic() + _LOOK_S] if can_be_cancelled() else []
        if self.retry.deadline_s is not None and self.running:
            moments.append(next(iter(self.running.values())).started + self.retry.deadline_s)
        if self.paused and not self.alone and self.in_flight < self.engine.in_flight:
            moments.append(self.paused[0][0])
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _settle(self, flight: _Flight, future: Future[Json], notes: StageNotes, alone: bool) -> None:
        error = CancelledError("cancelled") if future.cancelled() else future.exception()
        if error is None:
            self.results[flight.position] = result = future.result()
            self.done += 1
            key = self.plan.tasks[flight.position].key
            notes.add(key, result)
            self._say("done", key)
        elif isinstance(error, (WorkerLost, CancelledError)):
            self.deaths += not alone
            self._lose(flight, error, alone)
        elif isinstance(error, SketchscaleError) or not isinstance(error, Exception):
            raise error
        elif isinstance(error, self.retry.retryable):
            self._again(flight, error)
            pause = min(_LONGEST_PAUSE_S, self.retry.pause_s * 2 ** (flight.attempt - 2))
            heapq.heappush(self.paused, (time.monotonic() + pause, next(self.turn), flight))
        else:
            raise self._named(flight, error) from error

    def _replace_workers(self, notes: StageNotes, alone: bool) -> None:
        """A worker died and took its pool along: what finished is kept, the rest is submitted to new workers."""
        running, queued = self.running, self.queued
        self.running, self.queued = {}, {}
        self.deaths += not alone
        self.engine.restart()
        for future, flight in (*running.items(), *queued.items()):
            if future.done() and not future.cancelled() and not _broke_the_pool(future):
                self._settle(flight, future, notes, alone)
            elif future in running:
                self._lose(flight, WorkerLost("its worker died"), alone)
            else:
                self._submit(flight)

    def _lose(self, flight: _Flight, error: Exception, alone: bool) -> None:
        """A worker died under a task; see the top of this file for who is to blame."""
        if alone:
            excused = min(_MOST_EXCUSES, self.deaths - flight.losses)
            self._again(flight, error, self.retry.attempts + excused)
            self.suspects.append(flight)
            return
        flight.losses += 1
        self._say("retry", self.plan.tasks[flight.position].key)
        if flight.losses < self.retry.attempts - 1:
            self._submit(flight)
        else:
            self.suspects.append(flight)

    def _expire(self) -> None:
        """Where a deadline passed, workers are replaced; only tasks that were late spend an attempt."""
        latest = time.monotonic() - (self.retry.deadline_s or float("inf"))
        late = {future: flight for future, flight in self.running.items() if flight.started <= latest}
        if not late:
            return
        others = {future: flight for future, flight in self.running.items() if future not in late}
        if everything := self.engine.restart(tuple(late)):
            others |= self.queued
            self.queued = {}
        self.running = {} if everything else others
        for flight in late.values():
            self._again(flight, TaskTimeoutError(f"no answer within {self.retry.deadline_s} s"))
            self._submit(flight)
        for flight in others.values() if everything else ():
            self._submit(flight)

    def _again(self, flight: _Flight, error: Exception, attempts: int | None = None) -> None:
        """Count an attempt, if one is left."""
        if flight.attempt >= (attempts or self.retry.attempts):
            raise self._named(flight, error, attempts) from error
        flight.attempt += 1
        self._say("retry", self.plan.tasks[flight.position].key)

    def _named(self, flight: _Flight, error: BaseException, attempts: int | None = None) -> TaskError:
        kind = type(error) if isinstance(error, TaskError) else TaskError
        task = self.plan.tasks[flight.position]
        return kind(
            f"stage {self.plan.stage!r}, task {task.key}: {type(error).__name__}: {error} "
            f"(attempt {flight.attempt} of {attempts or self.retry.attempts}); "
            f"what finished is kept: run again with --resume"
        )

    def _say(self, kind: str, key: str = "") -> None:
        self.on_event(Event(kind=kind, stage=self.plan.stage, key=key, done=self.done, total=len(self.plan.tasks)))


def _broke_the_pool(future: Future[Json]) -> bool:
    return not future.cancelled() and isinstance(future.exception(), BrokenProcessPool)
