"""Plans, engines, ledgers and events, as data and protocols. The loop that runs plans is in `base`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

__all__ = [
    "Engine",
    "EngineOptions",
    "Event",
    "Json",
    "Ledger",
    "Needs",
    "NoLedger",
    "Plan",
    "SharedLedger",
    "StageNotes",
    "Task",
    "TaskT",
    "WorkerLost",
]

Json = Any
"""The result of a task: None, bool, int, float, str, lists and string-keyed dicts of these; small, for the ledger."""


class Task(Protocol):
    """A small frozen picklable record: boxes and addresses, never arrays."""

    @property
    def key(self) -> str:
        """Unique in its plan; sorts in the order of the plan."""
        ...


TaskT = TypeVar("TaskT", bound=Task)


class WorkerLost(Exception):
    """The worker of this task died or was removed; other tasks go on. The loop submits the task again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a task requires of its worker.

    Attributes:
        warm: something large is kept between tasks (a network), so the same workers should run all of them.
        gpu: the task runs on a GPU, or on a share of one.
    """

    warm: bool = False
    gpu: bool = False


_NOTHING = Needs()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Generic[TaskT]):
    """A stage of work: one function applied to each task.

    Attributes:
        stage: name in ledger, progress and errors.
        fn: `fn(task, config) -> Json`; module level, idempotent, without effects except its output.
        tasks: in the order of the results; no two write to the same write unit.
        config: one frozen picklable record for all tasks.
        task_bytes: peak memory of one running task, including arrays and codecs.
        worker_bytes: memory of a worker between tasks, such as the weights of a network.
        needs: what a task requires of its worker.
    """

    stage: str
    fn: Callable[[TaskT, Any], Json]
    tasks: Sequence[TaskT]
    config: Any = None
    task_bytes: int = 0
    worker_bytes: int = 0
    needs: Needs = _NOTHING

    def peak_bytes(self, workers: int) -> int:
        """Return the declared memory of the plan with this number of workers."""
        return max(1, min(workers, len(self.tasks))) * (self.task_bytes + self.worker_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Options of an engine.

    Attributes:
        workers: how many tasks run at once; None means the usable cores, or all of the cluster.
        address: of a running cluster; None starts one on this machine.
        gpus_per_worker: GPUs of each worker for tasks that need one; None means 1.
        wait_s: how long a cluster may fail to answer.
    """

    workers: int | None = None
    address: str | None = None
    gpus_per_worker: float | None = None
    wait_s: float = 60.0


class Engine(Protocol):
    """Turns a call into a future.

    A future ends with the value of the call, with the exception that it raised, or with `WorkerLost`. Unreachable
    machines are an `UnreachableError`, and requirements that no worker can ever meet a `SetupError`, never a silent
    wait.
    """

    @property
    def workers(self) -> int:
        """How many tasks run at once."""
        ...

    @property
    def in_flight(self) -> int:
        """How many tasks to keep submitted, so that no worker waits for the next one."""
        ...

    def submit(self, fn: Callable[..., Json], /, *args: Any, needs: Needs = _NOTHING) -> Future[Json]:
        """Run a call on a worker."""
        ...

    def restart(self, late: Collection[Future[Json]] = ()) -> bool:
        """Replace workers that died or hang.

        Args:
            late: futures whose tasks are abandoned; if empty, every worker is replaced.

        Returns:
            Whether all tasks in flight were lost; if not, only those of `late` were.
        """
        ...

    def close(self) -> None:
        """End all workers."""
        ...


class Ledger(Protocol):
    """The record of finished tasks; see `io.runs.ledger` for the one in storage."""

    def finished(self, stage: str) -> Mapping[str, Json]:
        """Return the results of the finished tasks of a stage, by key."""
        ...

    def record(self, stage: str, key: str, result: Json) -> None:
        """Record a finished task, after its output is written."""
        ...


class StageNotes(Protocol):
    """Notes of the driver about one stage whose workers write the records."""

    @property
    def finished(self) -> Mapping[str, Json]:
        """Results of the tasks that were finished when the stage started, by key."""
        ...

    def add(self, key: str, result: Json) -> None:
        """Note a task that its worker recorded; called once for every task that was not in `finished`."""
        ...

    def end(self) -> None:
        """Note that all tasks are done."""
        ...


@runtime_checkable
class SharedLedger(Ledger, Protocol):
    """A picklable ledger that workers write to themselves, so that no record waits for the driver."""

    def begin(self, stage: str, total: int) -> StageNotes:
        """Start or continue a stage of `total` tasks."""
        ...

    def check(self) -> None:
        """Raise if the run now belongs to another process; workers call this before a task and before its record."""
        ...


class NoLedger:
    """A ledger that keeps nothing, for work on arrays in memory and for tests."""

    def finished(self, stage: str) -> Mapping[str, Json]:
        """Return nothing."""
        return {}

    def record(self, stage: str, key: str, result: Json) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Progress of a stage, or of a whole verb.

    Attributes:
        kind: start, done, skipped, retry or end of a stage; finished, without a stage, at the end of a verb.
        done, total: tasks of the stage.
        fraction: finished part of the whole verb, from 0 to 1, never decreasing; None outside a verb.
    """

    kind: str
    stage: str
    key: str = ""
    done: int = 0
    total: int = 0
    fraction: float | None = None
