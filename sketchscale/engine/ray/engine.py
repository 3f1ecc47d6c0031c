"""RayEngine: turns calls into futures.

    submit ──▶ inbox ──▶ dispatcher ──▶ plain Ray tasks          stages on CPUs
                 ▲            └───────▶ warm actors (pool.py)    plans that run a network
                 └── futures of Ray, when they are done

One thread, the dispatcher, owns all state, so no locks are needed; everything reaches it through the inbox. Once per
second it also checks whether the cluster still answers and whether calls wait for something that will never come.

Ray retries nothing (`max_retries=0`): the loop in engine/base.py retries and counts.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import ray
from ray import exceptions

from sketchscale.engine.base import EngineOptions, Json, Needs, WorkerLost
from sketchscale.engine.local import usable_cores
from sketchscale.engine.ray.calls import CALLS_PER_WORKER, Packer, run_call, unpack
from sketchscale.engine.ray.cluster import Cluster, Node, Watch, check_workers, live_nodes, open_cluster
from sketchscale.engine.ray.pool import Call, WarmPool
from sketchscale.errors import SetupError, SketchscaleError, UnreachableError

__all__ = ["RayEngine"]

_LOOK_S = 1.0

_task: Any = ray.remote(run_call).options(max_retries=0, num_cpus=1)
"""Declared once, because Ray exports a function again each time that it is wrapped."""


class RayEngine:
    """An engine on Ray. The cluster is started or joined at the first task, or when its size is needed.

    A process that is already in a cluster (`ray.init` was called) stays in it, also after `close`.
    """

    def __init__(self, options: EngineOptions) -> None:
        self.options = options
        self._cluster: Cluster | None = None
        self._dispatcher: _Dispatcher | None = None
        self._opening = threading.Lock()
        self._packer = Packer()
        self._size = options.workers

    @property
    def workers(self) -> int:
        """As given; else the cores of this machine, or of the joined cluster as it is now."""
        if self._size is None and self.options.address is None and not ray.is_initialized():
            return usable_cores()
        if self._size is None:
            self._open()
            self._size = max(1, int(sum(node.cpus for node in live_nodes())))
        return self._size

    @property
    def in_flight(self) -> int:
        """As many tasks as all warm workers can hold."""
        return CALLS_PER_WORKER * self.workers

    def submit(self, fn: Callable[..., Json], /, *args: Any, needs: Needs | None = None) -> Future[Json]:
        """Submit a call; a repeated argument is sent once, so it must not be changed."""
        future: Future[Json] = Future()
        try:
            dispatcher = self._open()
            work = self._packer.pack(fn, args)
            gpus = None if needs is None or not needs.warm else 0.0  # of its warm worker; None for a plain task
            if needs is not None and needs.gpu:
                gpus = 1.0 if self.options.gpus_per_worker is None else self.options.gpus_per_worker
            call = Call(future=future, work=work, gpus=gpus)
        except SketchscaleError as error:
            future.set_exception(error)
            return future
        future.add_done_callback(partial(dispatcher.forget, call))
        dispatcher.add(call)
        return future

    def restart(self, late: Collection[Future[Json]] = ()) -> bool:
        """Stop late tasks with their workers; other tasks of a stopped warm worker run again elsewhere."""
        if self._dispatcher is not None:
            self._dispatcher.restart(late)
        return not late

    def close(self) -> None:
        """End the cluster, or leave it."""
        with self._opening:
            dispatcher, self._dispatcher = self._dispatcher, None
            cluster, self._cluster = self._cluster, None
        if dispatcher is not None:
            dispatcher.close()
        if cluster is not None:
            cluster.close()

    def _open(self) -> _Dispatcher:
        with self._opening:
            if self._dispatcher is None:
                self._cluster = open_cluster(self.options)
                try:
                    if self._size is not None:
                        check_workers(self._size)
                    self._dispatcher = _Dispatcher(self.options, self._cluster, lambda: self.workers)
                except BaseException:
                    if self._cluster is not None:
                        self._cluster.close()
                    raise
            return self._dispatcher


class _Dispatcher:
    """The thread that owns calls and pools; other threads use `add`, `forget`, `restart` and `close`."""

    def __init__(self, options: EngineOptions, cluster: Cluster | None, workers: Callable[[], int]) -> None:
        self.options, self.workers = options, workers
        self.where = cluster.address if cluster is not None else "the Ray cluster"
        self.pools: dict[float, WarmPool] = {}
        self.plain: set[Call] = set()
        self.warm: set[Call] = set()
        self.error: SketchscaleError | None = None
        self._probe: Future[Any] | None = None
        self._probed = 0.0
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._watch = Watch(options.wait_s)
        self._thread = threading.Thread(target=self._run, name="sketchscale-ray", daemon=True)
        self._thread.start()

    def add(self, call: Call) -> None:
        self._inbox.put(partial(self._add, call))

    def forget(self, call: Call, future: Future[Json]) -> None:
        """Drop the call of a future that was cancelled."""
        if future.cancelled():
            self._inbox.put(partial(self._drop, call))

    def restart(self, late: Collection[Future[Json]]) -> None:
        self._inbox.put(partial(self._restart, set(late)))

    def close(self) -> None:
        self._inbox.put(None)
        self._thread.join()
        self._watch.close()

    def _run(self) -> None:
        looked = time.monotonic()
        while True:
            try:
                message = self._inbox.get(timeout=_LOOK_S)
                if message is None:
                    break
                message()
            except queue.Empty:
                pass
            except Exception as error:  # otherwise futures would wait forever
                self._end(_as_ours(error, self.where))
            if time.monotonic() - looked >= _LOOK_S:
                looked = time.monotonic()
                self._look()
        for call in self._all():
            call.future.cancel()

    def _add(self, call: Call) -> None:
        if self.error is not None:
            _fail(call, self.error)
        elif call.gpus is None:
            if self._probe is None:
                self._probe, self._probed = _task.remote("", b"", {}).future(), time.monotonic()
            call.reference = _task.remote(*call.work)
            self.plain.add(call)
            self._later(call.reference.future(), partial(self._answered, call, call.reference))
        else:
            try:
                pool = self._pool(call.gpus)
            except SetupError as error:
                _fail(call, error)
                return
            self.warm.add(call)
            pool.queue.append(call)
            pool.dispatch()

    def _pool(self, gpus: float) -> WarmPool:
        if gpus not in self.pools:
            size = self._watch.fit(gpus, self.workers()) if gpus else self.workers()
            self.pools[gpus] = WarmPool(
                size, gpus, later=self._later, done=self._answered, nodes=lambda: self._watch.nodes
            )
        return self.pools[gpus]

    def _later(self, future: Future[Any], then: Callable[[Future[Any]], None]) -> None:
        future.add_done_callback(lambda done: self._inbox.put(partial(then, done)))

    def _answered(self, call: Call, reference: Any, answer: Future[Any]) -> None:
        if call.reference is not reference:
            return
        pool = None if call.gpus is None else self.pools[call.gpus]
        error = None if answer.exception() is None else _as_ours(answer.exception(), self.where)
        if pool is not None and isinstance(error, WorkerLost):
            pool.drop_worker(call)
        self._leave(call)
        if error is None:
            _settle(call, answer.result())
        else:
            _fail(call, error)
        if pool is not None:
            pool.dispatch()

    def _leave(self, call: Call) -> None:
        call.reference = None
        self.plain.discard(call)
        self.warm.discard(call)
        if call.gpus in self.pools:
            self.pools[call.gpus].leave(call)

    def _drop(self, call: Call) -> None:
        """Stop a call that is no longer needed if it is a plain task; on a warm worker it runs to its end."""
        if call in self.plain:
            ray.cancel(call.reference, force=True)
        if call.gpus not in self.pools or not self.pools[call.gpus].runs(call):
            self._leave(call)

    def _restart(self, late: set[Future[Json]]) -> None:
        for call in [call for call in self._all() if not late or call.future in late]:
            if call.gpus in self.pools:
                self.pools[call.gpus].stop(call)
            self._drop(call)
        for pool in self.pools.values():
            if not late:
                pool.clear()
            pool.dispatch()

    def _all(self) -> list[Call]:
        return [*self.plain, *self.warm]

    def _look(self) -> None:
        """End all calls if the cluster does not answer or calls wait without effect."""
        seen, patience = self._watch.look(), self.options.wait_s
        if seen.silence > patience:
            self._end(UnreachableError.after(self.where, seen.cause, attempts=seen.asked, seconds=seen.silence))
        elif seen.bare > patience and self._all():
            self._end(
                SetupError(f"{self.where} has had no CPU for {seen.bare:.0f} s; expected: a node with one; {_FIX}")
            )
        elif self._probe is not None and not self._probe.done() and time.monotonic() - self._probed > patience:
            self._end(SetupError(_busy(self.where, self._watch.nodes, "1 CPU", patience)))
        for pool in self.pools.values():
            waited, cause = pool.stuck()
            if waited > patience:
                asked = f"{pool.gpus:g} GPU for a worker" if pool.gpus else "a worker"
                self._end(SetupError(_busy(self.where, self._watch.nodes, asked, min(waited, patience), cause)))

    def _end(self, error: SketchscaleError) -> None:
        """End all present and later calls with an error."""
        self.error = error
        for call in self._all():
            self._leave(call)
            _fail(call, error)


_FIX = "to fix: wait until nodes are up or free, or a larger --wait, then give the same command again with --resume"


def _busy(where: str, nodes: Sequence[Node], asked: str, seconds: float, cause: str = "") -> str:
    """Return the message for a cluster that had nothing free in time."""
    why = f" ({' '.join(cause.split())[:300]})" if cause else ""
    has = f"{sum(n.cpus for n in nodes):g} CPUs and {sum(n.gpus for n in nodes):g} GPUs on {len(nodes)} nodes"
    return f"{where} gave no {asked} within {seconds:.0f} s{why}; expected: some of its {has} free; {_FIX}"


def _settle(call: Call, answer: Any) -> None:
    if not call.future.set_running_or_notify_cancel():
        return
    try:
        value = unpack(answer)
    except Exception as error:  # of the function
        call.future.set_exception(error)
    else:
        call.future.set_result(value)


def _fail(call: Call, error: BaseException) -> None:
    if call.future.set_running_or_notify_cancel():
        call.future.set_exception(error)


def _as_ours(error: BaseException | None, where: str) -> Any:
    """Turn an error of Ray into one that the loop knows: a lost worker, or an end."""
    if isinstance(error, SketchscaleError):
        return error
    if isinstance(error, exceptions.OutOfMemoryError):
        return WorkerLost("its node ran out of memory and its worker died")
    if isinstance(error, exceptions.RayTaskError) and not isinstance(error.cause, exceptions.RayError):
        return SetupError(
            f"a worker of {where} cannot run tasks: {' '.join(str(error.cause).split())[:300]}; expected: sketchscale "
            f"as it is here; to fix: install the same on every node of the cluster"
        )
    unmet = (exceptions.ActorUnschedulableError, exceptions.TaskUnschedulableError, exceptions.RuntimeEnvSetupError)
    if isinstance(error, unmet):
        return SetupError(f"{where} cannot place a worker: {' '.join(str(error).split())[:300]}; {_FIX}")
    if isinstance(error, exceptions.RayError):
        return WorkerLost("its worker died")
    return UnreachableError.after(where, error, attempts=1, seconds=0)
