"""One connection to a cluster: a thread with an event loop, a client, the calls in flight, and a watch over all.

A call is a coroutine, and the engine returns its concurrent future: cancelling the future ends the coroutine, and the
scheduler drops the task. The watch asks the scheduler over a separate connection, because that of the client may be
broken; when nothing can finish any more it ends every call with the same error.
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
"""Up to this size, shared bytes are sent with each call; larger ones are sent once to each worker."""

_ANSWER_S = 5.0
"""Time limit of one question to the scheduler, or of closing a connection."""

_Value = TypeVar("_Value")


class _Again(Exception):
    """The call was lost by no fault of its own; submitting it again costs no attempt."""


@dataclass(slots=True, kw_only=True)
class _Call:
    """One task in flight; its key changes when it is submitted again."""

    name: str
    shared: bytes
    own: bytes
    gpu: bool
    key: str = ""


class Session:
    """A connection to a cluster that was started or joined.

    Attributes:
        address: of the scheduler.
        threads: number of threads of all workers at the time of joining.

    Raises:
        InputError: not an address.
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
        self._exit.enter_context(silence_logging_cmgr(60))  # important problems are raised
        if self._options.address is None:
            self._own = OwnCluster(self._options.workers or usable_cores(), self._share)
            self._exit.callback(self._own.close)
            self.address = self._own.address
        else:
            self.address = self._options.address
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda loop, context: None)  # broken connections: the watch reports them
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
            cluster = self._run(self._first_answer(time.monotonic() + self._options.wait_s))
            if not self._suits(cluster, gpu=True):
                kind = "this machine" if self._options.address is None else f"the Dask cluster at {self.address}"
                raise SetupError(
                    f"{kind} has no GPU for a worker: {len(cluster['workers'])} workers, none with the resource "
                    f"GPU={self._share:g}; to fix: --device cpu, or workers started by "
                    f"`dask worker {self._options.address or 'ADDRESS'} --nthreads 1 --resources GPU={self._share:g}`"
                )
            self._gpu_seen = True
        shared, own = self._packer.pack(fn, args)
        call = _Call(name=getattr(fn, "__name__", "call"), shared=shared, own=own, gpu=gpu)
        future = asyncio.run_coroutine_threadsafe(self._finish(call), self._loop)
        self._calls[future] = call
        future.add_done_callback(lambda done: self._calls.pop(done, None))
        return future

    def replace(self, late: Collection[Future[Json]]) -> None:
        """Abandon `late`, or everything, and restart the workers that run it if they are ours to restart."""
        victims = self._run(self._abandon(list(late or self._calls)))
        if victims:
            asyncio.run_coroutine_threadsafe(self._restart(victims), self._loop)

    def close(self) -> None:
        """End all calls, the connection, the thread, and the cluster if it is ours."""
        self._exit.close()

    # everything below runs in the thread of the loop

    async def _join(self) -> None:
        deadline = time.monotonic() + self._options.wait_s
        try:
            security = distributed.Security()
            self._rpc = distributed.core.rpc(self.address, connection_args=security.get_connection_args("client"))
        except ValueError as error:
            self._refuse_address(error)
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
            cause = str(error) or "its workers do not report their versions"
            raise self._unreachable(cause, 1, time.monotonic() - started) from error
        self._watching = asyncio.create_task(self._watch())

    def _refuse_address(self, error: Exception) -> NoReturn:
        raise InputError.of(
            found=f"--address {self.address} is not an address ({error})",
            expected="the address of a Dask scheduler",
            fix="give it as tcp://HOST:8786",
        ) from error

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
        """Open a client for this process of the scheduler; calls of an earlier one are submitted again."""
        old, self._held = self._client, None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of versions, which `check_versions` reports in one line
            self._client = await distributed.Client(
                self.address, asynchronous=True, set_as_default=False, timeout=self._options.wait_s
            )
        self._scheduler = scheduler
        if old is not None:
            await _close_client(old)

    async def _leave(self) -> None:
        await _end(self._tasks)
        if self._client is not None:
            await _close_client(self._client)
        await _end(asyncio.all_tasks() - {asyncio.current_task()})
        with suppress(Exception):
            await self._rpc.close_rpc()

    def _suits(self, cluster: dict[str, Any], *, gpu: bool) -> bool:
        workers = cluster["workers"].values()
        return any(not gpu or worker["resources"].get("GPU", 0) >= self._share for worker in workers)

    async def _finish(self, call: _Call) -> Json:
        """Submit a call until it ends by its own result or error."""
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
        shared: Any = call.shared
        if len(shared) > _INLINE_BYTES:  # a future, which workers send to each other and the scheduler can make again
            digest = sha256(shared).hexdigest()
            if self._held is None or self._held[0] != digest:
                key = f"carried-{self._name}-{uuid.uuid4().hex}"
                with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
                    self._held = (digest, client.submit(carried, shared, key=key, pure=False, retries=0))
            shared = self._held[1]
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

    async def _watch(self) -> None:
        """End every call if the scheduler, or every worker that could run it, is away for `wait_s`."""
        patience = self._options.wait_s
        answered = staffed = time.monotonic()
        attempts = 0
        while self._error is None:
            await asyncio.sleep(min(max(patience / 10, 0.2), 5.0))
            try:
                cluster = dict(await asyncio.wait_for(self._rpc.identity(), _ANSWER_S))
                if cluster["id"] != self._scheduler or self._client.status == "closed":
                    await self._connect(cluster["id"])
            except Exception as error:  # any error: without a watch, calls would wait forever
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

    async def _abandon(self, late: list[Future[Json]]) -> list[str]:
        """Cancel calls; return the workers that still run them and nothing of other users."""
        keys = {self._calls[future].key for future in late if future in self._calls}
        victims: list[str] = []
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_ANSWER_S):
                running, held = await self._client.processing(), await self._client.has_what()
            for worker, tasks in running.items():
                is_ours = all(self._name in str(key) for key in (*tasks, *held.get(worker, ())))
                if is_ours and keys.intersection(tasks):
                    victims.append(worker)
        self._replaced.update(victims)
        for future in late:
            future.cancel()
        return victims

    async def _restart(self, workers: list[str]) -> None:
        """Have the nannies replace workers; a worker without a nanny stays, and meets the deadline again."""
        with suppress(OSError, TimeoutError, ValueError):
            if self._options.address is None:
                await self._client.run(end_worker, workers=workers, nanny=True, on_error="ignore")
            else:
                await self._client.restart_workers(workers, timeout=2 * _ANSWER_S, raise_for_error=False)


async def _end(tasks: Collection[asyncio.Task[Any] | None]) -> None:
    for task in (ended := [task for task in tasks if task is not None]):
        task.cancel()
    if ended:
        await asyncio.wait(ended, timeout=_ANSWER_S)


async def _close_client(client: Any) -> None:
    with suppress(OSError, TimeoutError):
        await asyncio.wait_for(client.close(), _ANSWER_S)
