"""Plans, and the one loop that runs them on any engine.

A *plan* is data: a function, its tasks, one configuration, and the memory a task declares. An *engine* turns a task
into a future and knows nothing else. Everything between (order, bounded in-flight work, retries, deadlines, progress,
the ledger of finished tasks) happens here, once, so that every engine has it alike.

Guarantees of `run_plan`:
  * results come in task order, whatever order the tasks finished in;
  * at most `engine.in_flight` tasks are in flight, so a plan of a million tasks costs the memory of its keys;
  * a task in the ledger is not run again; a task is recorded only after its function returned;
  * a task may run more than once (a worker died, a deadline passed): functions are idempotent, by contract;
  * a plan over the memory budget is refused before the first task.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

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
    "Task",
    "WorkerLost",
    "run_plan",
]

Json = Any
"""What a task returns: None, bool, int, float, str, lists and string-keyed dicts of these; small, for the ledger."""


class Task(Protocol):
    """A small frozen picklable record: boxes and addresses, never arrays."""

    @property
    def key(self) -> str:
        """Unique in its plan; sorts in the plan's order."""
        ...


TaskT = TypeVar("TaskT", bound=Task)


class WorkerLost(Exception):
    """The worker of this task died, or was taken away; other tasks go on. The loop submits the task again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What the worker of a task has to have.

    Attributes:
        warm: something heavy is kept between tasks (a network): the same workers should run all of them.
        gpu: the task runs on a GPU, or on the engine's share of one.
    """

    warm: bool = False
    gpu: bool = False


_NOTHING = Needs()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Generic[TaskT]):
    """What happens to which boxes.

    Attributes:
        stage: name in ledger, progress and errors.
        fn: `fn(task, config) -> Json`; module level, pure but for its own output, idempotent.
        tasks: in the order of the results; no two write the same write unit.
        config: one frozen picklable record, given to every task.
        task_bytes: the most one running task holds, arrays and codecs included.
        worker_bytes: what a worker holds between tasks, such as the weights of a network.
        needs: what the worker of a task has to have.
    """

    stage: str
    fn: Callable[[TaskT, Any], Json]
    tasks: Sequence[TaskT]
    config: Any = None
    task_bytes: int = 0
    worker_bytes: int = 0
    needs: Needs = _NOTHING

    def peak_bytes(self, workers: int) -> int:
        """The declared memory of the plan on so many workers."""
        return max(1, min(workers, len(self.tasks))) * (self.task_bytes + self.worker_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What an engine is told when it is opened.

    Attributes:
        workers: how many tasks run at once; None means the usable cores, or what the cluster has.
        address: of a cluster that runs already; None starts one on this machine.
        gpus_per_worker: of each worker that runs a task which needs a GPU; 1 when None.
        wait_s: how long a cluster may fail to answer.
        environment: variables that workers get before their first task; no secrets.
    """

    workers: int | None = None
    address: str | None = None
    gpus_per_worker: float | None = None
    wait_s: float = 60.0
    environment: Mapping[str, str] = field(default_factory=dict)


class Engine(Protocol):
    """Turns a call into a future.

    A future ends with the value of the call, with the exception that it raised, or with `WorkerLost`. Unreachable
    machines are an `UnreachableError`, and needs that no worker can ever meet a `SetupError`: never a silent wait.
    """

    @property
    def workers(self) -> int:
        """How many tasks run at once."""
        ...

    @property
    def in_flight(self) -> int:
        """How many tasks to have submitted, so that no worker waits for the next one."""
        ...

    def submit(self, fn: Callable[..., Json], /, *args: Any, needs: Needs = _NOTHING) -> Future[Json]: ...

    def restart(self, late: Collection[Future[Json]] = ()) -> bool:
        """Replace workers that died or hang.

        Args:
            late: futures whose tasks are given up; every worker is replaced when there are none.

        Returns:
            Whether all that was in flight went down with them; if not, only `late` did.
        """
        ...

    def close(self) -> None: ...


class Ledger(Protocol):
    """The record of finished tasks; see io.ledger for the one in storage."""

    def finished(self, stage: str) -> Mapping[str, Json]:
        """Results of the tasks of a stage that are done, by key."""
        ...

    def record(self, stage: str, key: str, result: Json) -> None:
        """Say that a task is done. Called after its output is written."""
        ...


class NoLedger:
    """Remembers nothing: for work on arrays in memory, and for tests."""

    def finished(self, stage: str) -> Mapping[str, Json]:
        return {}

    def record(self, stage: str, key: str, result: Json) -> None:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Progress: `kind` is start, done, skipped, retry or end; `done` and `total` count tasks of the stage."""

    kind: str
    stage: str
    key: str = ""
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How patient the loop is.

    Attributes:
        attempts: how often a task may run in all when its worker dies or storage fails.
        deadline_s: of one attempt; None waits for ever. Threads cannot be stopped: use processes where it matters.
        retryable: exceptions worth another attempt; a SketchscaleError, such as bad input, never is.
    """

    attempts: int = 3
    deadline_s: float | None = None
    retryable: tuple[type[Exception], ...] = (OSError,)


@dataclass(slots=True)
class _Flight:
    """A task under way."""

    position: int
    attempt: int
    started: float = field(default_factory=time.monotonic)


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
) -> list[Json]:
    """Run every task of a plan that the ledger does not have; results in task order.

    Raises:
        BudgetError: the plan declares more than `budget_bytes`; nothing was started.
        TaskError: a task failed for good; names stage and task. A SketchscaleError of the task is raised as it is.
    """
    check_budget(plan, engine.workers, budget_bytes)
    return _Loop(plan, engine, ledger or NoLedger(), on_event, retry or RetryPolicy()).run()


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


class _Loop:
    """The state of one `run_plan` call."""

    def __init__(
        self,
        plan: Plan[Any],
        engine: Engine,
        ledger: Ledger,
        on_event: Callable[[Event], None],
        retry: RetryPolicy,
    ) -> None:
        self.plan, self.engine, self.ledger, self.on_event, self.retry = plan, engine, ledger, on_event, retry
        self.results: dict[int, Json] = {}
        self.flights: dict[Future[Json], _Flight] = {}

    def run(self) -> list[Json]:
        queue = self._unfinished()
        self._say("start")
        try:
            while self.flights or self._submit_some(queue):
                self._collect()
                self._submit_some(queue)
        finally:
            for future in self.flights:
                future.cancel()
        self._say("end")
        return [self.results[i] for i in range(len(self.plan.tasks))]

    def _unfinished(self) -> Iterator[int]:
        finished = self.ledger.finished(self.plan.stage)
        missing = []
        for position, task in enumerate(self.plan.tasks):
            if task.key in finished:
                self.results[position] = finished[task.key]
            else:
                missing.append(position)
        if self.results:
            self._say("skipped")
        return iter(missing)

    def _submit_some(self, queue: Iterator[int]) -> bool:
        while len(self.flights) < self.engine.in_flight:
            position = next(queue, None)
            if position is None:
                break
            self._submit(_Flight(position, attempt=1))
        return bool(self.flights)

    def _submit(self, flight: _Flight) -> None:
        task = self.plan.tasks[flight.position]
        self.flights[self.engine.submit(self.plan.fn, task, self.plan.config, needs=self.plan.needs)] = flight

    def _collect(self) -> None:
        done, _ = wait(self.flights, timeout=self._patience(), return_when=FIRST_COMPLETED)
        if any(isinstance(future.exception(), BrokenProcessPool) for future in done):
            self._replace_workers()
            return
        for future in done:
            flight = self.flights.pop(future)
            error = future.exception()
            if error is None:
                self._finish(flight, future.result())
            else:
                self._fail(flight, error)
        if not done:
            self._expire()

    def _replace_workers(self) -> None:
        """A worker died and took its pool along: what finished is kept, the rest is submitted to new workers."""
        flights, self.flights = self.flights, {}
        self.engine.restart()
        for future, flight in flights.items():
            if future.done() and not future.cancelled() and future.exception() is None:
                self._finish(flight, future.result())
            else:
                self._again(flight, WorkerLost("its worker died"))

    def _patience(self) -> float | None:
        if self.retry.deadline_s is None:
            return None
        oldest = min(f.started for f in self.flights.values())
        return max(0.0, oldest + self.retry.deadline_s - time.monotonic())

    def _expire(self) -> None:
        """A deadline passed: workers are replaced; only tasks that were late spend an attempt."""
        latest = time.monotonic() - (self.retry.deadline_s or 0)
        late = {future: flight for future, flight in self.flights.items() if flight.started <= latest}
        others = {future: flight for future, flight in self.flights.items() if future not in late}
        everything = self.engine.restart(tuple(late))
        self.flights = {} if everything else others
        for flight in late.values():
            self._again(flight, TaskTimeoutError(f"no answer within {self.retry.deadline_s} s"))
        for flight in others.values() if everything else ():
            self._submit(_Flight(flight.position, flight.attempt))

    def _finish(self, flight: _Flight, result: Json) -> None:
        self.results[flight.position] = result
        key = self.plan.tasks[flight.position].key
        self.ledger.record(self.plan.stage, key, result)
        self._say("done", key)

    def _fail(self, flight: _Flight, error: BaseException) -> None:
        if isinstance(error, SketchscaleError) or not isinstance(error, Exception):
            raise error
        if not isinstance(error, (WorkerLost, *self.retry.retryable)):
            raise self._named(flight, error) from error
        self._again(flight, error)

    def _again(self, flight: _Flight, error: Exception) -> None:
        """Another attempt, if one is left."""
        if flight.attempt >= self.retry.attempts:
            raise self._named(flight, error) from error
        self._say("retry", self.plan.tasks[flight.position].key)
        self._submit(_Flight(flight.position, flight.attempt + 1))

    def _named(self, flight: _Flight, error: BaseException) -> TaskError:
        kind = type(error) if isinstance(error, TaskError) else TaskError
        task = self.plan.tasks[flight.position]
        return kind(
            f"stage {self.plan.stage!r}, task {task.key}: {type(error).__name__}: {error} "
            f"(attempt {flight.attempt} of {self.retry.attempts}); what finished is kept: run again with --resume"
        )

    def _say(self, kind: str, key: str = "") -> None:
        total = len(self.plan.tasks)
        self.on_event(Event(kind=kind, stage=self.plan.stage, key=key, done=len(self.results), total=total))
