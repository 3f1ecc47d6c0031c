"""Warm actors: which runs which call, and what happens when one dies.

A call goes to the worker with the fewest calls, which runs at most CALLS_PER_WORKER at once. Workers are started when
there is work for them. A worker that dies loses all its calls (`WorkerLost`; the loop knows that only one of them can
be the cause), and the next call starts another. A worker that is stopped because of a late call loses no other call.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sketchscale.engine.base import Json
from sketchscale.engine.ray.calls import CALLS_PER_WORKER, Work, warm_worker
from sketchscale.engine.ray.cluster import Node

__all__ = ["Call", "Later", "WarmPool"]

_FAILED_STARTS = 5
"""How many workers in a row may die before they are ready."""

Later = Callable[[Future[Any], Callable[[Future[Any]], None]], None]
"""Calls a function with a future of Ray when that is done, in the thread that uses the pool."""


@dataclass(slots=True, eq=False, kw_only=True)
class Call:
    """A task in flight.

    Attributes:
        gpus: of the warm worker that it needs; None for a plain task.
        reference: of Ray, to the current run; None while it waits.
    """

    future: Future[Json]
    work: Work
    gpus: float | None = None
    reference: Any = None


@dataclass(slots=True, eq=False, kw_only=True)
class _Member:
    """One warm worker; `node` is where it should start, "" means anywhere."""

    actor: Any
    node: str
    calls: list[Call] = field(default_factory=list)
    ready: bool = False

    @property
    def has_room(self) -> bool:
        return self.ready and len(self.calls) < CALLS_PER_WORKER


class WarmPool:
    """Workers with one share of a GPU each; used by a single thread."""

    def __init__(
        self,
        size: int,
        gpus: float,
        *,
        later: Later,
        done: Callable[[Call, Any, Future[Any]], None],
        nodes: Callable[[], Sequence[Node]],
    ) -> None:
        """
        Args:
            size: maximum number of workers.
            gpus: of each; 0 for CPU only.
            later: see `Later`.
            done: called with each call, its reference and its future of Ray.
            nodes: returns the current nodes of the cluster.
        """
        self.size, self.gpus, self._later, self._done, self._nodes = size, gpus, later, done, nodes
        self.queue: deque[Call] = deque()
        self.members: list[_Member] = []
        self._failed_starts, self._cause = 0, ""
        self._stuck_since: float | None = None

    def dispatch(self) -> None:
        """Give queued calls to free workers, and start workers for the rest."""
        while self.queue and (able := [member for member in self.members if member.has_room]):
            member = min(able, key=lambda member: len(member.calls))
            call = self.queue.popleft()
            member.calls.append(call)
            reference = call.reference = member.actor.run.remote(*call.work)
            self._later(reference.future(), partial(self._done, call, reference))
        outstanding = len(self.queue) + sum(len(member.calls) for member in self.members)
        while self.queue and len(self.members) < min(self.size, outstanding):
            self._start_worker()

    def _of(self, call: Call) -> _Member | None:
        return next((member for member in self.members if call in member.calls), None)

    def leave(self, call: Call) -> None:
        """Remove a call that is answered, or abandoned while it waits."""
        if call in self.queue:
            self.queue.remove(call)
        if member := self._of(call):
            member.calls.remove(call)

    def drop_worker(self, call: Call) -> None:
        """Remove the dead worker of a call; its other calls get their own errors."""
        if member := self._of(call):
            self._dismiss(member)

    def runs(self, call: Call) -> bool:
        """Return whether a worker runs the call."""
        return self._of(call) is not None

    def stop(self, call: Call) -> None:
        """Stop an abandoned call with its worker, and queue the other calls of that worker again."""
        member = self._of(call)
        self.leave(call)
        if member is not None:
            self._dismiss(member)
            for other in reversed(member.calls):
                other.reference = None
                self.queue.appendleft(other)

    def clear(self) -> None:
        """End all workers."""
        for member in list(self.members):
            self._dismiss(member)

    def _start_worker(self) -> None:
        options: dict[str, Any] = {"num_cpus": 0, "num_gpus": self.gpus} if self.gpus else {}
        nodes = [node for node in self._nodes() if node.cpus >= 1]
        name = ""
        if nodes and not self.gpus:  # the most cores per worker; Ray would not count, as warm workers reserve none
            taken = Counter(member.node for member in self.members)
            name = max(nodes, key=lambda node: node.cpus / (1 + taken[node.name])).name
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(name, soft=True)
        actor = warm_worker.options(
            max_concurrency=CALLS_PER_WORKER, max_restarts=0, max_task_retries=0, **options
        ).remote()
        member = _Member(actor=actor, node=name)
        self.members.append(member)
        self._later(actor.__ray_ready__.remote().future(), partial(self._started, member))

    def _started(self, member: _Member, future: Future[Any]) -> None:
        if member not in self.members:
            return
        if future.exception() is None:
            member.ready, self._failed_starts, self._stuck_since = True, 0, None
        else:
            self._failed_starts, self._cause = self._failed_starts + 1, str(future.exception())
            self._dismiss(member)
        if self._failed_starts < _FAILED_STARTS:
            self.dispatch()

    def _dismiss(self, member: _Member) -> None:
        self.members.remove(member)
        ray.kill(member.actor, no_restart=True)

    def stuck(self) -> tuple[float, str]:
        """Return for how many seconds calls wait for a first worker (inf after many failed starts), and the cause."""
        if not self.queue or any(member.ready for member in self.members):
            self._stuck_since = None
            return 0.0, ""
        if self._failed_starts >= _FAILED_STARTS:
            return float("inf"), self._cause
        self._stuck_since = self._stuck_since or time.monotonic()
        return time.monotonic() - self._stuck_since, self._cause
