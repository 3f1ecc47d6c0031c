"""Dask as others start it: a scheduler and workers as processes, by the command line of Dask."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil


@contextmanager
def shared_cluster(*workers: dict[str, Any]) -> Iterator[str]:
    """A scheduler and a worker with each of these options; its address."""
    with ExitStack() as stack:
        address, _ = stack.enter_context(scheduler_process())
        for options in workers:
            stack.enter_context(worker_process(address, **options))
        yield address


@contextmanager
def scheduler_process() -> Iterator[tuple[str, int]]:
    """A scheduler on a free port of loopback: its address and process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    with _process([sys.executable, "-m", "distributed.cli.dask_scheduler", *options]) as process:
        yield f"tcp://127.0.0.1:{port}", process.pid


@contextmanager
def worker_process(address: str, *, resources: str = "", path: str = "", threads: int = 1) -> Iterator[None]:
    """A worker with its nanny."""
    options = ["--host", "127.0.0.1", "--nthreads", str(threads), "--no-dashboard", "--memory-limit", "0"]
    options += ["--resources", resources] if resources else []
    path = os.pathsep.join(filter(None, (path, str(Path(__file__).parents[2]))))
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, *options]
    with _process(command, PYTHONPATH=path):
        yield


@contextmanager
def _process(command: list[str], **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    process = subprocess.Popen(command, env={**os.environ, **environment}, **quiet)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
