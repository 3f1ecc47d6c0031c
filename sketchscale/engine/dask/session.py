"""One connection to a cluster: a thread with an event loop, a client, the calls under way, and a watch over all.

A call is a coroutine, and what the engine hands out is its concurrent future: cancelling that ends the coroutine, and
the scheduler forgets the task. The watch asks the scheduler by a connection of its own, because the client's may be
what is broken; when nothing can finish any more it ends every call with the same error.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NoReturn, TypeVar

import dask.config
import distributed
from distributed.scheduler import KilledWorker
from distributed.utils import silence_logging_cmgr

from sketchscale.engine.base import EngineOptions, Json, WorkerLost
from sketchscale.engine.dask.calls import Packer, carried, run_call
from sketchscale.engine.dask.versions import check_versions
from sketchscale.engine.dask.workers import OwnCluster, end_worker
from sketchscale.engine.local import usable_cores
from sketchscale.errors import InputError, SetupError, SketchscaleError, UnreachableError

__all__ = ["Session"]

_INLINE_BYTES = 65536
"""What calls share goes with each of them up to this size; more is sent once to each worker."""

_ANSWER_S = 5.0
"""How long one question to the scheduler, or a farewell, may take."""

_Value = TypeVar("_Value")


class _Again(Exception):
    """The call was lost without a fault of its own: submit it again, which spends no attempt."""


@dataclass(slots=True, kw_only=True)
class _Call:
    """One task under way; its key changes when it is submitted again."""

    name: str
    shared: bytes
    own: bytes
    gpu: bool
    key: str = ""


class Session:
    """Starts or joins a cluster.

    Attributes:
        address: of the scheduler.
        threads: of all workers at the time of joining.

    Raises:
        InputError: the address is not one.
        UnreachableError, SetupError: see `DaskEngine.submit`.
    """

    def __init__(self, options: EngineOptions) -> None:
        self.threads = 0
        self._options = options
        self._share = options.gpus_per_worker or 1.0
        self._name = uuid.uuid4().hex[:12]
        self._packer = Packer()
        self._calls: dict[Future[Json], _Call] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._held: tuple[str, Any] | None = None
        self._replaced: set[str] = set()
        self._error: SketchscaleError | None = None
        self._gpu_seen = False
        self._client: Any = None
        self._exit = ExitStack()
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._exit.enter_context(silence_logging_cmgr(60))  # what matters is raised
        if self._options.address is None:
            self._own = OwnCluster(self._options.workers or usable_cores(), self._share)
            self._exit.callback(self._own.close)
            self.address = self._own.address
        else:
            self.address = self._options.address
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda loop, context: None)  # of connections that broke: the watch tells
        thread = threading.Thread(target=self._loop.run_forever, name="sketchscale-dask", daemon=True)
        thread.start()
        self._exit.callback(self._loop.close)
        self._exit.callback(thread.join)
        self._exit.callback(self._loop.call_soon_threadsafe, self._loop.stop)
        self._exit.callback(lambda: self._run(self._leave()))
        self._run(self._join())

    def _run(self, coroutine: Coroutine[Any, Any, _Value]) -> _Value:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def submit(self, fn: Callable[..., Json], args: tuple[Any, ...], *, gpu: bool) -> Future[Json]:
        """See `DaskEngine.submit`."""
        if self._error is not None:
            raise self._error
        if gpu and not self._gpu_seen:
            self._run(self._check_gpu())
        shared, own = self._packer.pack(fn, args)
        call = _Call(name=getattr(fn, "__name__", "call"), shared=shared, own=own, gpu=gpu)
        future = asyncio.run_coroutine_threadsafe(self._finish(call), self._loop)
        self._calls[future] = call
        future.add_done_callback(lambda done: self._calls.pop(done, None))
        return future

    def replace(self, late: Collection[Future[Json]]) -> None:
        """Give up `late`, or everything, and restart the workers which run it, as far as they are ours to restart."""
        victims = self._run(self._give_up(list(late or self._calls)))
        if victims:
            asyncio.run_coroutine_threadsafe(self._restart(victims), self._loop)

    def close(self) -> None:
        """End all calls, then the connection, the thread, and the cluster if it is ours."""
        self._exit.close()

    # everything below runs in the loop's thread

    async def _join(self) -> None:
        deadline = time.monotonic() + self._options.wait_s
        self._rpc = self._rpc_of(self.address)
        cluster = await self._first_answer(deadline)
        while not cluster["workers"]:
            if time.monotonic() > deadline:
                raise SetupError(
                    f"the Dask cluster at {self.address} has no workers after {self._options.wait_s:.0f} s; "
                    f"to fix: start some: dask worker {self.address} --nthreads 1"
                )
            await asyncio.sleep(0.2)
            cluster = await self._first_answer(deadline)
        self.threads = int(cluster["total_threads"])
        asked = self._options.workers
        self._slots = asyncio.Semaphore(asked if asked and self._options.address else 1_000_000)
        started = time.monotonic()
        try:
            await self._connect(cluster["id"])
            if self._options.address is not None:
                await asyncio.wait_for(check_versions(self._client, self.address), self._options.wait_s)
        except SketchscaleError:
            raise
        except (OSError, TimeoutError) as error:
            cause = str(error) or "its workers do not say their versions"
            raise self._unreachable(cause, 1, time.monotonic() - started) from error
        self._watching = asyncio.create_task(self._watch())

    def _rpc_of(self, address: str) -> Any:
        try:
            security = distributed.Security()
            return distributed.core.rpc(address, connection_args=security.get_connection_args("client"))
        except ValueError as error:
            self._refuse_address(error)

    def _refuse_address(self, error: Exception) -> NoReturn:
        raise InputError.of(
            found=f"--address {self.address} is not one ({error})",
            expected="the address of a Dask scheduler",
            fix="give it as tcp://HOST:8786",
        ) from error

    async def _identity(self) -> dict[str, Any]:
        """What the scheduler says of itself and all its workers."""
        return dict(await asyncio.wait_for(self._rpc.identity(), _ANSWER_S))

    async def _first_answer(self, deadline: float) -> dict[str, Any]:
        started, attempts = deadline - self._options.wait_s, 0
        while True:
            attempts += 1
            try:
                left = max(0.1, min(_ANSWER_S, deadline - time.monotonic()))
                return dict(await asyncio.wait_for(self._rpc.identity(), left))
            except ValueError as error:
                self._refuse_address(error)
            except (OSError, TimeoutError) as error:
                if time.monotonic() >= deadline:
                    raise self._unreachable(error, attempts, time.monotonic() - started) from error
                await asyncio.sleep(0.1)

    def _unreachable(self, cause: object, attempts: int, seconds: float) -> UnreachableError:
        what = f"the Dask cluster at {self.address}"
        return UnreachableError.after(what, str(cause) or "timed out", attempts=attempts, seconds=seconds)

    async def _connect(self, scheduler: str) -> None:
        """A client for this incarnation of the scheduler; calls of the one before are submitted again."""
        old, self._held = self._client, None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of versions: `check_versions` says it in one line
            self._client = await distributed.Client(
                self.address, asynchronous=True, set_as_default=False, timeout=self._options.wait_s
            )
        self._scheduler = scheduler
        if old is not None:
            await _farewell(old)

    async def _leave(self) -> None:
        await _end(self._tasks)
        if self._client is not None:
            await _farewell(self._client)
        await _end(asyncio.all_tasks() - {asyncio.current_task()})
        with suppress(Exception):
            await self._rpc.close_rpc()

    async def _check_gpu(self) -> None:
        cluster = await self._first_answer(time.monotonic() + self._options.wait_s)
        if not self._suits(cluster, gpu=True):
            kind = "this machine" if self._options.address is None else f"the Dask cluster at {self.address}"
            raise SetupError(
                f"{kind} has no GPU for a worker: {len(cluster['workers'])} workers, none with the resource "
                f"GPU={self._share:g}; to fix: --device cpu, or workers started by "
                f"`dask worker {self._options.address or 'ADDRESS'} --nthreads 1 --resources GPU={self._share:g}`"
            )
        self._gpu_seen = True

    def _suits(self, cluster: dict[str, Any], *, gpu: bool) -> bool:
        workers = cluster["workers"].values()
        return any(not gpu or worker["resources"].get("GPU", 0) >= self._share for worker in workers)

    async def _finish(self, call: _Call) -> Json:
        """Submit a call until it ends for a reason of its own."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            async with self._slots:
                while True:
                    with suppress(_Again):
                        return await self._submit(call)
                    await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            if self._error is not None:
                raise self._error from None
            raise
        finally:
            self._tasks.discard(task)

    async def _submit(self, call: _Call) -> Json:
        client = self._client
        if client.status not in ("running", "connecting"):
            raise _Again
        call.key = f"{call.name}-{self._name}-{uuid.uuid4().hex}"
        resources = {"GPU": self._share} if call.gpu else None
        shared = self._carry(call.shared) if len(call.shared) > _INLINE_BYTES else call.shared
        future = client.submit(run_call, shared, call.own, key=call.key, pure=False, retries=0, resources=resources)
        try:
            return await future.result()
        except KilledWorker as error:
            self._held = None
            if error.task != call.key or error.last_worker.address in self._replaced:
                raise _Again from error
            raise WorkerLost("its worker died") from error
        except CancelledError as error:
            if client is not self._client or getattr(error, "reason", "") == "scheduler-connection-lost":
                raise _Again from error
            raise WorkerLost(f"the scheduler cancelled it: {getattr(error, 'reason', 'unknown')}") from error
        finally:
            future.release()

    def _carry(self, shared: bytes) -> Any:
        """A future of large bytes: workers pass them on among themselves, and the scheduler can make them again."""
        digest = sha256(shared).hexdigest()
        if self._held is None or self._held[0] != digest:
            key = f"carried-{self._name}-{uuid.uuid4().hex}"
            with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
                self._held = (digest, self._client.submit(carried, shared, key=key, pure=False, retries=0))
        return self._held[1]

    async def _watch(self) -> None:
        """Ends every call when the scheduler, or every worker that could run it, is gone for `wait_s`."""
        patience = self._options.wait_s
        answered = staffed = time.monotonic()
        attempts = 0
        while self._error is None:
            await asyncio.sleep(min(max(patience / 10, 0.2), 5.0))
            try:
                cluster = await self._identity()
                if cluster["id"] != self._scheduler or self._client.status == "closed":
                    await self._connect(cluster["id"])
            except Exception as error:  # whatever it is: without a watch, calls would wait for ever
                attempts += 1
                if time.monotonic() - answered > patience:
                    self._fail(self._unreachable(error, attempts, time.monotonic() - answered))
                continue
            answered, attempts = time.monotonic(), 0
            if self._suits(cluster, gpu=any(call.gpu for call in tuple(self._calls.values()))):
                staffed = answered
            elif answered - staffed > patience:
                self._fail(self._unreachable("its workers are gone", 1, answered - staffed))

    def _fail(self, error: SketchscaleError) -> None:
        self._error = error
        for task in tuple(self._tasks):
            task.cancel()

    async def _give_up(self, late: list[Future[Json]]) -> list[str]:
        """Cancel calls; returns the workers that go on with them."""
        keys = {self._calls[future].key for future in late if future in self._calls}
        victims: list[str] = []
        with suppress(OSError, TimeoutError):
            victims = await asyncio.wait_for(self._workers_of(keys), _ANSWER_S)
        self._replaced.update(victims)
        for future in late:
            future.cancel()
        return victims

    async def _restart(self, workers: list[str]) -> None:
        """Their nannies kill them, and start others; without a nanny nobody can, and the deadline comes again."""
        with suppress(OSError, TimeoutError, ValueError):
            if self._options.address is None:
                await self._client.run(end_worker, workers=workers, nanny=True, on_error="ignore")
            else:
                await self._client.restart_workers(workers, timeout=2 * _ANSWER_S, raise_for_error=False)

    async def _workers_of(self, keys: set[str]) -> list[str]:
        """Who runs any of the keys, and nothing of anyone else."""
        running, held = await self._client.processing(), await self._client.has_what()
        return [
            worker
            for worker, tasks in running.items()
            if keys.intersection(tasks) and all(self._name in str(key) for key in (*tasks, *held.get(worker, ())))
        ]


async def _end(tasks: Collection[asyncio.Task[Any] | None]) -> None:
    for task in (ended := [task for task in tasks if task is not None]):
        task.cancel()
    if ended:
        await asyncio.wait(ended, timeout=_ANSWER_S)


async def _farewell(client: Any) -> None:
    with suppress(OSError, TimeoutError):
        await asyncio.wait_for(client.close(), _ANSWER_S)
