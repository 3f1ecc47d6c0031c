"""RayEngine: calls into futures.

    submit ──▶ inbox ──▶ keeper ──▶ plain Ray tasks          stages on processors
                 ▲          └─────▶ warm actors (pool.py)    plans that run a network
                 └── Ray's futures, when they are done

One thread, the keeper, owns all state, so there are no locks; everything reaches it through the inbox. Once a second it
also looks whether the cluster still answers and whether calls wait for what never comes.

Ray retries nothing (`max_retries=0`): the loop in engine/base.py does, and counts.
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
"""Declared once: Ray exports a function anew each time that it is wrapped."""


class RayEngine:
    """An engine on Ray. The cluster is started or joined at the first task, or when its size is asked for.

    A process that is in a cluster already (`ray.init` was called) stays in it, and `close` leaves it as it was.
    """

    def __init__(self, options: EngineOptions) -> None:
        self.options = options
        self._cluster: Cluster | None = None
        self._keeper: _Keeper | None = None
        self._opening = threading.Lock()
        self._packer = Packer()
        self._size = options.workers

    @property
    def workers(self) -> int:
        """As asked; else the cores of this machine, or of the cluster that is joined, as it is now."""
        if self._size is None and self.options.address is None and not ray.is_initialized():
            return usable_cores()
        if self._size is None:
            self._open()
            self._size = max(1, int(sum(node.cpus for node in live_nodes())))
        return self._size

    @property
    def in_flight(self) -> int:
        return CALLS_PER_WORKER * self.workers

    def submit(self, fn: Callable[..., Json], /, *args: Any, needs: Needs | None = None) -> Future[Json]:
        """A call of a function; an argument that comes again and again is sent once, and must not be changed."""
        future: Future[Json] = Future()
        try:
            keeper = self._open()
            work = self._packer.pack(fn, args)
            call = Call(future=future, work=work, gpus=self._gpus(needs or Needs()))
        except SketchscaleError as error:
            future.set_exception(error)
            return future
        future.add_done_callback(partial(keeper.forget, call))
        keeper.add(call)
        return future

    def restart(self, late: Collection[Future[Json]] = ()) -> bool:
        """Late tasks are stopped with their worker; tasks that shared a warm worker with one run again elsewhere."""
        if self._keeper is not None:
            self._keeper.restart(late)
        return not late

    def close(self) -> None:
        with self._opening:
            keeper, self._keeper = self._keeper, None
            cluster, self._cluster = self._cluster, None
        if keeper is not None:
            keeper.close()
        if cluster is not None:
            cluster.close()

    def _open(self) -> _Keeper:
        with self._opening:
            if self._keeper is None:
                self._cluster = open_cluster(self.options)
                try:
                    if self._size is not None:
                        check_workers(self._size)
                    self._keeper = _Keeper(self.options, self._cluster, lambda: self.workers)
                except BaseException:
                    if self._cluster is not None:
                        self._cluster.close()
                    raise
            return self._keeper

    def _gpus(self, needs: Needs) -> float | None:
        """Of the warm worker that a task needs; None for a plain task."""
        if not needs.gpu:
            return 0.0 if needs.warm else None
        return 1.0 if self.options.gpus_per_worker is None else self.options.gpus_per_worker


class _Keeper:
    """The thread that owns calls and pools."""

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

    # ---- from other threads

    def add(self, call: Call) -> None:
        self._inbox.put(partial(self._add, call))

    def forget(self, call: Call, future: Future[Json]) -> None:
        """A future is done; one that was cancelled need not be computed any more."""
        if future.cancelled():
            self._inbox.put(partial(self._drop, call))

    def restart(self, late: Collection[Future[Json]]) -> None:
        self._inbox.put(partial(self._restart, set(late)))

    def close(self) -> None:
        self._inbox.put(None)
        self._thread.join()
        self._watch.close()

    # ---- the thread

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
            except Exception as error:  # nobody else would see it, and futures would wait for ever
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
            self._start_plain(call)
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

    def _start_plain(self, call: Call) -> None:
        if self._probe is None:
            self._probe, self._probed = _task.remote("", b"", {}).future(), time.monotonic()
        call.reference = _task.remote(*call.work)
        self.plain.add(call)
        self._later(call.reference.future(), partial(self._answered, call, call.reference))

    def _later(self, future: Future[Any], then: Callable[[Future[Any]], None]) -> None:
        future.add_done_callback(lambda done: self._inbox.put(partial(then, done)))

    def _answered(self, call: Call, reference: Any, answer: Future[Any]) -> None:
        if call.reference is not reference:
            return
        pool = None if call.gpus is None else self.pools[call.gpus]
        error = None if answer.exception() is None else _as_ours(answer.exception(), self.where)
        if pool is not None and isinstance(error, WorkerLost):
            pool.bury(call)
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
        """Nobody waits for it: a plain task is stopped, one on a warm worker comes to its own end there."""
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
        """Whether the cluster answers, and whether anything is waited for in vain."""
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
        """Nothing will come any more: every call gets the error, and so do later ones."""
        self.error = error
        for call in self._all():
            self._leave(call)
            _fail(call, error)


_FIX = "to fix: wait until nodes are up or free, or a larger --wait, then give the same command again with --resume"


def _busy(where: str, nodes: Sequence[Node], asked: str, seconds: float, cause: str = "") -> str:
    """Nothing free in time."""
    why = f" ({' '.join(cause.split())[:300]})" if cause else ""
    has = f"{sum(n.cpus for n in nodes):g} CPUs and {sum(n.gpus for n in nodes):g} GPUs on {len(nodes)} nodes"
    return f"{where} gave no {asked} within {seconds:.0f} s{why}; expected: some of its {has} free; {_FIX}"


def _settle(call: Call, answer: Any) -> None:
    if not call.future.set_running_or_notify_cancel():
        return
    try:
        value = unpack(answer)
    except Exception as error:  # what the function raised
        call.future.set_exception(error)
    else:
        call.future.set_result(value)


def _fail(call: Call, error: BaseException) -> None:
    if call.future.set_running_or_notify_cancel():
        call.future.set_exception(error)


def _as_ours(error: BaseException | None, where: str) -> Any:
    """What Ray says, in the words of the loop: a lost worker, or an end."""
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
