"""The Dask engine: tasks as futures of a scheduler, on workers of this machine or of any cluster.

    run_plan -> DaskEngine.submit -> one coroutine per task (session.py) -> scheduler -> worker (calls.py)

The scheduler sees one task per block and nothing else of a plan.

Guarantees:
  * a task whose worker died ends with `WorkerLost`, and the loop counts attempts: at the first death on a cluster of
    ours, on a shared one after as many as its setting `distributed.scheduler.allowed-failures` grants;
  * a connection that is lost and comes back within `wait_s` costs no attempt: what was in flight is submitted again;
  * a scheduler that does not answer for `wait_s`, and a cluster that has no worker for so long, or none of the needed
    kind, end every task with an error; so does a cluster of other versions, before the first task;
  * a cancelled future that still waits is never run; one that runs already ends in its worker;
  * work of other users of a shared cluster is left alone, also when a worker has to be replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any

from sketchscale.engine.base import EngineOptions, Json, Needs
from sketchscale.engine.dask.session import Session
from sketchscale.engine.local import usable_cores

__all__ = ["DaskEngine"]


class DaskEngine:
    """Starts its own cluster when no address is given; starts or joins at the first task.

    On a cluster of ours each worker is a process with one thread, and with its share of a GPU while there are any.
    """

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._session: Session | None = None

    @property
    def workers(self) -> int:
        """As asked for; else the usable cores, or all threads of the cluster that is joined."""
        if self._options.workers is not None:
            return self._options.workers
        return usable_cores() if self._options.address is None else self._joined().threads

    @property
    def in_flight(self) -> int:
        return 2 * self.workers

    def submit(self, fn: Callable[..., Json], /, *args: Any, needs: Needs | None = None) -> Future[Json]:
        """Hand a call to the cluster.

        Raises:
            UnreachableError: the cluster does not answer.
            SetupError: it has no workers, other versions, or no GPU where one is needed.
        """
        return self._joined().submit(fn, args, gpu=needs is not None and needs.gpu)

    def restart(self, late: Collection[Future[Json]] = ()) -> bool:
        """Replace the workers which run `late`; on a shared cluster only those that hold nothing of anyone else."""
        if self._session is not None:
            self._session.replace(late)
        return not late

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _joined(self) -> Session:
        if self._session is None:
            self._session = Session(self._options)
        return self._session
