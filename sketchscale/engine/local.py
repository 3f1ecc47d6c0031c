"""Engines for one machine: serial, threads and processes.

The serial engine runs a task when it is submitted. It is the simplest engine, and the reference for all others.
Processes start by `spawn`, because forking a process that already runs torch or zarr threads can hang.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from sketchscale.engine.base import EngineOptions, Json, Needs

__all__ = ["ProcessEngine", "SerialEngine", "ThreadEngine", "usable_cores"]


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class SerialEngine:
    """Runs each task in the calling thread when it is submitted."""

    workers = 1
    in_flight = 1

    def __init__(self, options: EngineOptions | None = None) -> None:
        """Accept the options that all engines have; there is always one worker."""

    def submit(self, fn: Callable[..., Json], /, *args: Any, needs: Needs | None = None) -> Future[Json]:
        """Run the call."""
        future: Future[Json] = Future()
        try:
            future.set_result(fn(*args))
        except Exception as error:  # raised when the result is read, as in every executor
            future.set_exception(error)
        return future

    def restart(self, late: Collection[Future[Json]] = ()) -> bool:
        """Do nothing: no task is in flight between two calls."""
        return True

    def close(self) -> None:
        """Do nothing."""


class _PoolEngine:
    """An engine on an executor of the standard library, made on first use."""

    def __init__(self, options: EngineOptions) -> None:
        self.workers = options.workers or usable_cores()
        self.in_flight = 2 * self.workers
        self._pool: Executor | None = None

    def submit(self, fn: Callable[..., Json], /, *args: Any, needs: Needs | None = None) -> Future[Json]:
        if self._pool is None:
            self._pool = self._open_pool()
        return self._pool.submit(fn, *args)

    def restart(self, late: Collection[Future[Json]] = ()) -> bool:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
        return True

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _open_pool(self) -> Executor:
        raise AssertionError("each pool engine opens its own pool")


class ThreadEngine(_PoolEngine):
    """Tasks share the process; numba, torch, codecs and files release the interpreter lock while they work."""

    def _open_pool(self) -> Executor:
        return ThreadPoolExecutor(self.workers, thread_name_prefix="sketchscale")


def _begin_worker() -> None:
    """Leave Ctrl-C to the driver, which lets running tasks finish, and end this worker when the driver is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_driver() -> None:
        driver = multiprocessing.parent_process()
        if driver is not None:
            driver.join()
            os._exit(1)

    threading.Thread(target=end_with_driver, daemon=True).start()


class ProcessEngine(_PoolEngine):
    """Each worker is a process: a crash costs only running tasks, and a task past its deadline is really stopped."""

    def submit(self, fn: Callable[..., Json], /, *args: Any, needs: Needs | None = None) -> Future[Json]:
        """Give the call to the pool; a broken pool is an error of the future."""
        try:
            return super().submit(fn, *args, needs=needs)
        except BrokenProcessPool as error:  # a worker died since the last answer; the loop expects this in the future
            future: Future[Json] = Future()
            future.set_exception(error)
            return future

    def _open_pool(self) -> Executor:
        spawn = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.workers, mp_context=spawn, initializer=_begin_worker)

    def restart(self, late: Collection[Future[Json]] = ()) -> bool:
        """Kill all workers; new ones start with the next call."""
        pool = self._pool
        if isinstance(pool, ProcessPoolExecutor):
            for process in list(getattr(pool, "_processes", {}).values()):
                process.kill()
        return super().restart(late)
