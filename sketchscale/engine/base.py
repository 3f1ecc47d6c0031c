"""The loop that runs plans on any engine.

A *plan* is data: a function, its tasks, one configuration, and the memory that a task declares. An *engine* turns a
task into a future. Everything between (order, bounded work in flight, retries, deadlines, progress, the ledger of
finished tasks) happens here, so that it is the same on every engine.

Guarantees of `run_plan`:
  * results come in task order, regardless of the order in which tasks finish;
  * at most `engine.in_flight` tasks are in flight, and the work of the loop per task does not grow with their number,
    so a plan of a million tasks needs only the memory of its keys and results;
  * a task in the ledger is not run again. It is recorded after its function returned, by the worker that ran it if the
    ledger is a `SharedLedger`;
  * a task may run more than once (a worker died, a deadline passed), so functions must be idempotent;
  * a plan over the memory budget is refused before the first task;
  * storage errors are retried after a short pause, in which other tasks go on.

Attributing worker deaths to tasks. A task that always kills its worker must end in an error; a task that was hit by
accident on a changing cluster must not. A death while several tasks were running counts against none of them, but a
task that was lost in this way `attempts - 1` times is suspended until all others are done, and then runs alone. A death
while it runs alone counts, and after `attempts` of these the run ends. Each other worker that died in the meantime
without the task (up to ten) excuses one more death alone. With three attempts, a task must be hit five times on a
stable cluster.

A deadline counts from the moment when a worker can have taken the task: the oldest `engine.workers` tasks in flight are
running, the others wait.
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
    "Plan",
    "RetryPolicy",
    "StageNotes",
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
    """Limits of retries.

    Attributes:
        attempts: how often a task may run if storage fails, it is late, or its worker dies while it runs alone.
        deadline_s: of one attempt; None means no limit. Threads cannot be stopped, so use processes with it.
        retryable: exceptions that are retried; a SketchscaleError, such as bad input, never is.
        pause_s: before the second attempt after such an exception; doubles each time, up to 10 s.
    """

    attempts: int = 3
    deadline_s: float | None = None
    retryable: tuple[type[Exception], ...] = (OSError,)
    pause_s: float = 0.2


@dataclass(slots=True)
class _Flight:
    """A task in flight.

    Attributes:
        attempt: number of this attempt, from 1; deaths among other tasks do not count.
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
    """Run every task of a plan that is not in the ledger; return the results in task order.

    Args:
        around: picklable; gives the context in which a worker runs and records each task: settings of the job.

    Raises:
        BudgetError: the plan declares more than `budget_bytes`; nothing was started.
        Cancelled: the job was cancelled; see `engine.cancelling`.
        TaskError: a task failed finally; names stage and task. A SketchscaleError of the task or of the engine is
            raised unchanged.
    """
    check_budget(plan, engine.workers, budget_bytes)
    return _Loop(plan, engine, ledger or NoLedger(), on_event, retry or RetryPolicy(), around).run()


def check_budget(plan: Plan[TaskT], workers: int, budget_bytes: int | None) -> None:
    """Check that a plan does not declare more memory than it may use.

    Raises:
        BudgetError: it does; names the options to change.
    """
    peak = plan.peak_bytes(workers)
    if budget_bytes is not None and peak > budget_bytes:
        raise BudgetError(
            f"stage {plan.stage!r} declares {peak / 1e9:.2f} GB on {workers} workers; "
            f"expected: at most {budget_bytes / 1e9:.2f} GB; "
            f"to fix: a smaller --block, fewer --workers, or a larger --memory"
        )


def _run_in_worker(
    around: Callable[[], AbstractContextManager[None]],
    ledger: SharedLedger | None,
    stage: str,
    fn: Callable[..., Json],
    task: Task,
    config: Any,
) -> Json:
    """Run and record a task in the context of its job."""
    with around():
        if ledger is None:
            return fn(task, config)
        ledger.check()
        result = fn(task, config)
        ledger.record(stage, task.key, result)
        return result


class _DriverNotes:
    """Notes of a driver that writes the records itself, for ledgers in memory."""

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
        self._report("start")
        try:
            while True:
                while self.in_flight < self.engine.in_flight and (flight := self._next(queue)) is not None:
                    self._submit(flight)
                if not (self.in_flight or self.paused or self.suspects):
                    break
                self._collect(notes)
                check_cancelled()
        finally:
            for future in (*self.running, *self.queued):
                future.cancel()
        notes.end()
        self._report("end")
        return self.results

    def _begin(self) -> StageNotes:
        stage, tasks = self.plan.stage, self.plan.tasks
        notes: StageNotes = self.shared.begin(stage, len(tasks)) if self.shared else _DriverNotes(self.ledger, stage)
        if finished := notes.finished:
            for position, task in enumerate(tasks):
                self.results[position] = finished.get(task.key, _MISSING)
                self.done += self.results[position] is not _MISSING
        if self.done:
            self._report("skipped")
        return notes

    def _next(self, queue: Iterator[int]) -> _Flight | None:
        """Return the task to submit now: one whose pause is over, the next one, or finally a suspect alone."""
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
        call = (self.around, self.shared, plan.stage, plan.fn, task, plan.config)
        future = self.engine.submit(_run_in_worker, *call, needs=plan.needs)
        self.queued[future] = flight
        self._promote()
        future.add_done_callback(self.answers.put)

    def _promote(self) -> None:
        """Start the clock of the tasks that a worker can have taken."""
        while self.queued and len(self.running) < self.engine.workers:
            future = next(iter(self.queued))
            flight = self.running[future] = self.queued.pop(future)
            flight.started = time.monotonic()

    def _collect(self, notes: StageNotes) -> None:
        """Wait for finished tasks, and handle each."""
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
        """Return the futures that are done, at least one before the time limit, without abandoned ones."""
        moments = [time.monotonic() + _LOOK_S] if can_be_cancelled() else []
        if self.retry.deadline_s is not None and self.running:  # the oldest task is late
            moments.append(next(iter(self.running.values())).started + self.retry.deadline_s)
        if self.paused and not self.alone and self.in_flight < self.engine.in_flight:  # a pause is over
            moments.append(self.paused[0][0])
        answers: list[Future[Json]] = []
        with contextlib.suppress(Empty):
            answers.append(self.answers.get(timeout=max(0.0, min(moments) - time.monotonic()) if moments else None))
            while True:
                answers.append(self.answers.get_nowait())
        return [future for future in answers if future in self.running or future in self.queued]

    def _settle(self, flight: _Flight, future: Future[Json], notes: StageNotes, alone: bool) -> None:
        error = CancelledError("cancelled") if future.cancelled() else future.exception()
        if error is None:
            self.results[flight.position] = result = future.result()
            self.done += 1
            key = self.plan.tasks[flight.position].key
            notes.add(key, result)
            self._report("done", key)
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
        """Keep what finished before a worker died with its pool, and submit the rest to new workers."""
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
        """Handle a death of the worker of a task, by the rules at the top of this file."""
        if alone:
            excused = min(_MOST_EXCUSES, self.deaths - flight.losses)
            self._again(flight, error, self.retry.attempts + excused)
            self.suspects.append(flight)
            return
        flight.losses += 1
        self._report("retry", self.plan.tasks[flight.position].key)
        if flight.losses < self.retry.attempts - 1:
            self._submit(flight)
        else:
            self.suspects.append(flight)

    def _expire(self) -> None:
        """Replace the workers of late tasks; only late tasks use up an attempt."""
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
        """Count an attempt; raise the error if none is left."""
        if flight.attempt >= (attempts or self.retry.attempts):
            raise self._named(flight, error, attempts) from error
        flight.attempt += 1
        self._report("retry", self.plan.tasks[flight.position].key)

    def _named(self, flight: _Flight, error: BaseException, attempts: int | None = None) -> TaskError:
        kind = type(error) if isinstance(error, TaskError) else TaskError
        task = self.plan.tasks[flight.position]
        return kind(
            f"stage {self.plan.stage!r}, task {task.key}: {type(error).__name__}: {error} "
            f"(attempt {flight.attempt} of {attempts or self.retry.attempts}); "
            f"what finished is kept: run again with --resume"
        )

    def _report(self, kind: str, key: str = "") -> None:
        self.on_event(Event(kind=kind, stage=self.plan.stage, key=key, done=self.done, total=len(self.plan.tasks)))


def _broke_the_pool(future: Future[Json]) -> bool:
    return not future.cancelled() and isinstance(future.exception(), BrokenProcessPool)
