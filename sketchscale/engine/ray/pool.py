"""Warm actors: who runs what, and what happens when one dies.

A call goes to the worker that has the least to do, at most CALLS_PER_WORKER of them to one. Workers are made when there
is work for them. One that dies takes all its calls along (`WorkerLost`; the loop knows that only one of them can be to
blame), and the next call makes another. One that is ended because of a late call takes no other call along.
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
"""Workers that die before they are ready, one after another, before it is an error."""

Later = Callable[[Future[Any], Callable[[Future[Any]], None]], None]
"""Has a function called with a future of Ray once that is done, in the thread that uses the pool."""


@dataclass(slots=True, eq=False, kw_only=True)
class Call:
    """A task on its way.

    Attributes:
        gpus: of the warm worker that it needs; None for a plain task.
        reference: Ray's, to the run that counts; None while it waits.
    """

    future: Future[Json]
    work: Work
    gpus: float | None = None
    reference: Any = None


@dataclass(slots=True, eq=False, kw_only=True)
class _Member:
    """One warm worker; `node` is where it was meant to start, "" anywhere."""

    actor: Any
    node: str
    calls: list[Call] = field(default_factory=list)
    ready: bool = False

    @property
    def has_room(self) -> bool:
        return self.ready and len(self.calls) < CALLS_PER_WORKER


class WarmPool:
    """Workers with one share of a GPU each; used by one thread."""

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
            size: most workers.
            gpus: of each; 0 on processors.
            done: called with each call, its reference and its future of Ray.
            nodes: of the cluster, as they are now.
        """
        self.size, self.gpus, self._later, self._done, self._nodes = size, gpus, later, done, nodes
        self.queue: deque[Call] = deque()
        self.members: list[_Member] = []
        self._failed_starts, self._cause = 0, ""
        self._stuck_since: float | None = None

    def dispatch(self) -> None:
        """Give out what is queued, and make workers for what is left."""
        while self.queue and (member := self._free()):
            call = self.queue.popleft()
            member.calls.append(call)
            reference = call.reference = member.actor.run.remote(*call.work)
            self._later(reference.future(), partial(self._done, call, reference))
        outstanding = len(self.queue) + sum(len(member.calls) for member in self.members)
        while self.queue and len(self.members) < min(self.size, outstanding):
            self._hire()

    def _free(self) -> _Member | None:
        able = [member for member in self.members if member.has_room]
        return min(able, key=lambda member: len(member.calls), default=None)

    def _of(self, call: Call) -> _Member | None:
        return next((member for member in self.members if call in member.calls), None)

    # ---- how calls end

    def leave(self, call: Call) -> None:
        """A call has its answer, or is given up while it waits."""
        if call in self.queue:
            self.queue.remove(call)
        if member := self._of(call):
            member.calls.remove(call)

    def bury(self, call: Call) -> None:
        """The worker of a call has died; the other calls that were there have errors of their own."""
        if member := self._of(call):
            self._dismiss(member)

    def runs(self, call: Call) -> bool:
        """Whether a worker has it."""
        return self._of(call) is not None

    def stop(self, call: Call) -> None:
        """End a call that is given up, and its worker with it; other calls of that worker go to another."""
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

    # ---- workers

    def _hire(self) -> None:
        node = "" if self.gpus else self._emptiest()
        options: dict[str, Any] = {"num_cpus": 0, "num_gpus": self.gpus} if self.gpus else {}
        if node:
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=True)
        actor = warm_worker.options(
            max_concurrency=CALLS_PER_WORKER, max_restarts=0, max_task_retries=0, **options
        ).remote()
        member = _Member(actor=actor, node=node)
        self.members.append(member)
        self._later(actor.__ray_ready__.remote().future(), partial(self._started, member))

    def _emptiest(self) -> str:
        """The node with most cores for each of its workers; a warm worker holds none, so that Ray would not count."""
        taken = Counter(member.node for member in self.members)
        nodes = [node for node in self._nodes() if node.cpus >= 1]
        return max(nodes, key=lambda node: node.cpus / (1 + taken[node.name])).name if nodes else ""

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
        """Seconds that calls have waited for a first worker, and why if that is known; inf after many failed starts."""
        if not self.queue or any(member.ready for member in self.members):
            self._stuck_since = None
            return 0.0, ""
        if self._failed_starts >= _FAILED_STARTS:
            return float("inf"), self._cause
        self._stuck_since = self._stuck_since or time.monotonic()
        return time.monotonic() - self._stuck_since, self._cause
