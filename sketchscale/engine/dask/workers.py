"""A Dask cluster on this machine, in a process of its own: scheduler and nannies there, each worker one more.

    driver --stdin--> cluster process --spawn--> worker, worker, ...

Why not `LocalCluster` in the driver: it starts workers by importing the user's script again, which fails without a
main guard, and its scheduler competes with the driver for one interpreter. Here the script is never imported, Ctrl-C
reaches the driver alone, and what workers print goes to a log instead of the results on stdout.

Guarantees:
  * scheduler and workers listen on loopback only; no dashboard;
  * the cluster ends with the driver, however that ends: its stdin closes, and the whole process group is killed;
  * a worker that dies is replaced by its nanny, and a nanny that gives up by this process;
  * how often a task may be tried is left to the loop of `run_plan`.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask.config
from distributed import Nanny, Scheduler, SpecCluster

from sketchscale.errors import SetupError

__all__ = ["OwnCluster", "end_worker", "gpus_of", "machine_gpus", "main"]

_START_S = 120.0
_SETTINGS = {
    "distributed.scheduler.allowed-failures": 0,  # the first death is told to the loop, which counts attempts
    "distributed.scheduler.worker-saturation": 1.0,  # what waits, waits at the scheduler and dies with no worker
    "distributed.scheduler.worker-ttl": "25s",  # 5 minutes by default
    "distributed.comm.timeouts.connect": "20s",
    "distributed.comm.timeouts.tcp": "20s",
    "distributed.worker.profile.enabled": False,
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,  # hands memory back all the time: slow networks
    "distributed.admin.large-graph-warning-threshold": "1TB",
}


class OwnCluster:
    """Starts the process and waits for its address; `close` kills all of it.

    Args:
        workers: how many processes, of one thread each.
        gpus_per_worker: share of a GPU that each worker gets while there are any.

    Raises:
        SetupError: it did not start; says what its log said last.
    """

    def __init__(self, workers: int, gpus_per_worker: float) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="sketchscale-dask-"))
        settings = {"workers": workers, "gpus": gpus_per_worker, "folder": str(self._folder)}
        path = os.pathsep.join(part or os.getcwd() for part in sys.path)
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", f"from {__name__} import main; main()", json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )
        try:
            self.address = self._address()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Of the scheduler's process, the leader of the workers' group."""
        return self._process.pid

    def close(self) -> None:
        """End every process; returns when they are gone."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _address(self) -> str:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _START_S)
        address = self._process.stdout.readline().decode().strip() if ready else ""
        if not address:
            lines = (self._folder / "log").read_text(errors="replace").split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), f"no answer in {_START_S:.0f} s")
            raise SetupError(f"Dask workers did not start on this machine: {last[:300]}; to fix: --engine processes")
        return address


def end_worker(dask_worker: Any) -> None:
    """Run in a nanny: its worker is killed at once, whatever it does, and started again."""
    os.kill(dask_worker.pid, signal.SIGKILL)


def machine_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES lists, or else the numbers of this machine's NVIDIA devices (Linux)."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [name.strip() for name in listed.split(",") if name.strip() not in ("", "-1")]
    return sorted(p.name.removeprefix("nvidia") for p in Path("/dev").glob("nvidia[0-9]*"))


def gpus_of(worker: int, share: float, gpus: list[str]) -> list[str]:
    """The devices of one worker; none when all shares are taken. A share below 1 never spans two devices.

    >>> [gpus_of(worker, 0.4, ["0", "1"]) for worker in range(5)]
    [['0'], ['0'], ['1'], ['1'], []]
    >>> [gpus_of(worker, 2, ["0", "1", "2"]) for worker in range(2)]
    [['0', '1'], []]
    """
    if share < 1:
        device = worker // int(1 / share + 1e-9)
        return gpus[device : device + 1]
    count = math.ceil(share)
    chosen = gpus[worker * count : (worker + 1) * count]
    return chosen if len(chosen) == count else []


def _options_of(worker: int, share: float, gpus: list[str]) -> dict[str, Any]:
    """Nanny options in which workers differ."""
    chosen = gpus_of(worker, share, gpus)
    return {"env": {"CUDA_VISIBLE_DEVICES": ",".join(chosen)}, "resources": {"GPU": share}} if chosen else {}


def _serve(settings: dict[str, Any]) -> None:
    """Run the cluster until the driver's end of stdin closes."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what workers print does not reach the driver's pipe
    dask.config.set(_SETTINGS)
    gpus = machine_gpus()
    common = {"nthreads": 1, "memory_limit": 0, "host": "127.0.0.1", "dashboard": False, "dashboard_address": None}
    common["local_directory"] = settings["folder"]
    workers = {
        number: {"cls": Nanny, "options": {**common, **_options_of(number, settings["gpus"], gpus)}}
        for number in range(settings["workers"])
    }
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard": False}}
    cluster = SpecCluster(workers=workers, scheduler=scheduler, name="sketchscale", loop=None)
    answer.write(f"{cluster.scheduler_address}\n")
    answer.close()
    _wait_for_the_driver(cluster)


def _wait_for_the_driver(cluster: Any) -> None:
    """Returns when stdin closes, or when this process was given to another parent; mends the cluster meanwhile."""
    parent, down = os.getppid(), Counter[int]()
    while os.getppid() == parent:
        ready, _, _ = select.select([0], [], [], 1.0)
        if ready and not os.read(0, 1):
            return
        with suppress(Exception):  # a worker that was killed while it started: the next round starts it again
            cluster.sync(_mend, cluster, down)


async def _mend(cluster: Any, down: Counter[int]) -> None:
    """A nanny whose worker dies while it starts gives up: after three rounds without a process it is replaced."""
    for name, nanny in tuple(cluster.workers.items()):
        process = nanny.process
        down[name] = 0 if process is not None and process.is_alive() else down[name] + 1
        if down[name] >= 3:
            down[name] = 0
            with suppress(Exception):
                await asyncio.wait_for(nanny.close(), 5)
            cluster.workers.pop(name, None)
    if len(cluster.workers) < len(cluster.worker_spec):
        await cluster._correct_state()


def main() -> None:
    """The process of the cluster; its one argument is the settings as JSON."""
    settings = json.loads(sys.argv[1])
    try:
        _serve(settings)
        shutil.rmtree(settings["folder"], ignore_errors=True)
    except BaseException:
        traceback.print_exc()  # into the log, which the driver reads
    sys.stderr.flush()
    os.killpg(os.getpgrp(), signal.SIGKILL)
