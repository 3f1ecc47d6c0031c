"""A Dask cluster on this machine, in a separate process: scheduler and nannies there, and one more process per worker.

    driver --stdin--> cluster process --spawn--> worker, worker, ...

`LocalCluster` in the driver would start workers by importing the script of the user again, which fails without a main
guard, and its scheduler would compete with the driver for one interpreter. Here the script is never imported, Ctrl-C
reaches only the driver, and output of workers goes to a log instead of stdout, where results go.

Guarantees:
  * scheduler and workers listen on loopback only; there is no dashboard;
  * the cluster always ends with the driver: its stdin closes, and the whole process group is killed;
  * a nanny replaces a worker that dies, and this process replaces a nanny that gives up;
  * the loop of `run_plan` decides how often a task is retried.
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
    "distributed.scheduler.allowed-failures": 0,  # the loop learns of the first death, and counts attempts
    "distributed.scheduler.worker-saturation": 1.0,  # waiting tasks stay at the scheduler and die with no worker
    "distributed.scheduler.worker-ttl": "25s",  # 5 minutes by default
    "distributed.comm.timeouts.connect": "20s",
    "distributed.comm.timeouts.tcp": "20s",
    "distributed.worker.profile.enabled": False,
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,  # trims all the time: slow networks
    "distributed.admin.large-graph-warning-threshold": "1TB",
}


class OwnCluster:
    """Starts the process and waits for its address; `close` kills all of its processes.

    Args:
        workers: number of processes, with one thread each.
        gpus_per_worker: share of a GPU for each worker while any are left.

    Raises:
        SetupError: it did not start; shows the last line of its log.
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
            assert self._process.stdout is not None
            ready, _, _ = select.select([self._process.stdout], [], [], _START_S)
            self.address = self._process.stdout.readline().decode().strip() if ready else ""
            if not self.address:
                lines = (self._folder / "log").read_text(errors="replace").split("\n")
                last = next((line.strip() for line in lines[::-1] if line.strip()), f"no answer in {_START_S:.0f} s")
                raise SetupError(
                    f"Dask workers did not start on this machine: {last[:300]}; to fix: --engine processes"
                )
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Process number of the scheduler, which leads the group of the workers."""
        return self._process.pid

    def close(self) -> None:
        """Kill every process and wait until they have ended."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def end_worker(dask_worker: Any) -> None:
    """Kill the worker of the nanny that runs this; the nanny starts another."""
    os.kill(dask_worker.pid, signal.SIGKILL)


def machine_gpus() -> list[str]:
    """Return the devices in CUDA_VISIBLE_DEVICES, or else the numbers of the NVIDIA devices of this machine (Linux)."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [name.strip() for name in listed.split(",") if name.strip() not in ("", "-1")]
    return sorted(p.name.removeprefix("nvidia") for p in Path("/dev").glob("nvidia[0-9]*"))


def gpus_of(worker: int, share: float, gpus: list[str]) -> list[str]:
    """Return the devices of one worker; none if all shares are taken. A share below 1 never spans two devices.

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


def _serve(settings: dict[str, Any]) -> None:
    """Run the cluster until the driver closes stdin."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # so output of workers does not reach the pipe of the driver
    dask.config.set(_SETTINGS)
    gpus = machine_gpus()
    common = {"nthreads": 1, "memory_limit": 0, "host": "127.0.0.1", "dashboard": False, "dashboard_address": None}
    common["local_directory"] = settings["folder"]
    workers: dict[int, Any] = {}
    for number in range(settings["workers"]):
        options = dict(common)
        if chosen := gpus_of(number, settings["gpus"], gpus):
            options |= {"env": {"CUDA_VISIBLE_DEVICES": ",".join(chosen)}, "resources": {"GPU": settings["gpus"]}}
        workers[number] = {"cls": Nanny, "options": options}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard": False}}
    cluster = SpecCluster(workers=workers, scheduler=scheduler, name="sketchscale", loop=None)
    answer.write(f"{cluster.scheduler_address}\n")
    answer.close()
    parent, down = os.getppid(), Counter[int]()
    while os.getppid() == parent:  # until this process loses its parent or stdin closes
        ready, _, _ = select.select([0], [], [], 1.0)
        if ready and not os.read(0, 1):
            return
        with suppress(Exception):  # a worker that was killed while it started: the next round starts it again
            cluster.sync(_replace_nannies, cluster, down)


async def _replace_nannies(cluster: Any, down: Counter[int]) -> None:
    """Replace nannies without a process for three rounds: they give up when their worker dies while it starts."""
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
    """Run the process of the cluster; its only argument is the settings as JSON."""
    settings = json.loads(sys.argv[1])
    try:
        _serve(settings)
        shutil.rmtree(settings["folder"], ignore_errors=True)
    except BaseException:
        traceback.print_exc()  # into the log, which the driver reads
    sys.stderr.flush()
    os.killpg(os.getpgrp(), signal.SIGKILL)
