"""What runs and what runs it: plans, engines, ledgers and events, as data and protocols. The loop is in `base`."""

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
    """

    workers: int | None = None
    address: str | None = None
    gpus_per_worker: float | None = None
    wait_s: float = 60.0


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


class StageNotes(Protocol):
    """What the driver notes about one stage, while its workers write the records."""

    @property
    def finished(self) -> Mapping[str, Json]:
        """Results of the tasks that are done when the stage starts, by key."""
        ...

    def add(self, key: str, result: Json) -> None:
        """A task is done, and recorded by its worker. Called once for every task that was not in `finished`."""
        ...

    def end(self) -> None:
        """All tasks are done."""
        ...


@runtime_checkable
class SharedLedger(Ledger, Protocol):
    """A picklable ledger that workers write to themselves, so that no record waits for the driver."""

    def begin(self, stage: str, total: int) -> StageNotes:
        """Say that a stage of so many tasks starts, or goes on."""
        ...

    def check(self) -> None:
        """Raises where the run belongs to another process by now. Called by workers before and after a task."""
        ...


class NoLedger:
    """Remembers nothing: for work on arrays in memory, and for tests."""

    def finished(self, stage: str) -> Mapping[str, Json]:
        return {}

    def record(self, stage: str, key: str, result: Json) -> None:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Progress of a stage, or of a whole verb.

    Attributes:
        kind: start, done, skipped, retry or end of a stage; finished, of no stage, at the end of a verb.
        done, total: tasks of the stage.
        fraction: of the whole verb that is done, from 0 to 1; never falls. None where no verb is around.
    """

    kind: str
    stage: str
    key: str = ""
    done: int = 0
    total: int = 0
    fraction: float | None = None
