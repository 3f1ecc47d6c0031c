"""The Dask engine: tasks as futures of a scheduler, on workers of this machine or of any cluster.

    run_plan -> DaskEngine.submit -> one coroutine per task (session.py) -> scheduler -> worker (calls.py)

The scheduler sees one task per block and nothing else of a plan.

Guarantees:
  * a task whose worker died ends with `WorkerLost`, and the loop counts attempts: at the first death on our own
    cluster, on a shared one after the number that its setting `distributed.scheduler.allowed-failures` allows;
  * a connection that is lost and comes back within `wait_s` costs no attempt: tasks in flight are submitted again;
  * every task ends with an error if the scheduler does not answer for `wait_s`, or if the cluster has no suitable
    worker for that long; a cluster with other versions is an error before the first task;
  * a cancelled future that still waits is never run; one that is running ends in its worker;
  * work of other users of a shared cluster is not touched, even when a worker has to be replaced.
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
    """An engine on its own cluster, or on one at an address; it starts or joins at the first task.

    In its own cluster each worker is a process with one thread, and with a share of a GPU while any are left.
    """

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._session: Session | None = None

    @property
    def workers(self) -> int:
        """As given; else the usable cores, or all threads of the joined cluster."""
        if self._options.workers is not None:
            return self._options.workers
        return usable_cores() if self._options.address is None else self._joined().threads

    @property
    def in_flight(self) -> int:
        """Two tasks for each worker."""
        return 2 * self.workers

    def submit(self, fn: Callable[..., Json], /, *args: Any, needs: Needs | None = None) -> Future[Json]:
        """Submit a call to the cluster.

        Raises:
            UnreachableError: the cluster does not answer.
            SetupError: it has no workers, other versions, or no GPU for a call that needs one.
        """
        return self._joined().submit(fn, args, gpu=needs is not None and needs.gpu)

    def restart(self, late: Collection[Future[Json]] = ()) -> bool:
        """Replace the workers that run `late`; on a shared cluster only those that hold nothing of other users."""
        if self._session is not None:
            self._session.replace(late)
        return not late

    def close(self) -> None:
        """End or leave the cluster."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _joined(self) -> Session:
        if self._session is None:
            self._session = Session(self._options)
        return self._session
