"""Dask: the suites that every engine passes, then what a cluster can do to a run before it starts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sketchscale.engine import open_engine
from sketchscale.engine.base import Engine, Needs, run_plan
from sketchscale.errors import InputError, SetupError, UnreachableError
from tests.conformance.engines import ClusterSuite, napped, plan_of, squared, wait_for_file
from tests.engine.dask_processes import is_running, shared_cluster

pytestmark = pytest.mark.slow

distributed = pytest.importorskip("distributed")


class TestDask(ClusterSuite):
    def open_engine(self, **options: Any) -> Engine:
        return open_engine("dask", 2, **options)


def seconds(call: Callable[[], Any]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def fails(engine: Engine, folder: Path, error: type[Exception], match: str, **needs: bool) -> None:
    """A plan on this engine is refused, and the engine still closes."""
    try:
        with pytest.raises(error, match=match):
            run_plan(replace(plan_of(2, folder), needs=Needs(**needs)), engine)
    finally:
        engine.close()


def test_an_address_where_nobody_listens_is_an_error_in_time(tmp_path: Path) -> None:
    engine = open_engine("dask", address="tcp://127.0.0.1:9", wait_s=2)
    words = r"127\.0\.0\.1:9 does not answer: .*\d+ attempts? in \d+ s.*--resume"
    assert seconds(lambda: fails(engine, tmp_path, UnreachableError, words)) < 40


def test_a_server_that_is_no_scheduler_is_an_error_in_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, and never says a word
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        engine = open_engine("dask", address=address, wait_s=2)
        assert seconds(lambda: fails(engine, tmp_path, UnreachableError, "does not answer")) < 40


def test_an_address_that_is_none_says_how_they_look(tmp_path: Path) -> None:
    fails(open_engine("dask", address="gopher://there:1", wait_s=2), tmp_path, InputError, r"tcp://HOST:8786")


def test_a_cluster_without_workers_is_an_error_that_says_how_to_start_some(tmp_path: Path) -> None:
    with shared_cluster() as address:
        with distributed.Client(address, timeout=100, set_as_default=False):  # it is up
            engine = open_engine("dask", address=address, wait_s=4)
        fails(engine, tmp_path, SetupError, r"no workers after 4 s; to fix: .*dask worker tcp://")


def test_workers_with_another_version_are_refused_before_the_first_task(tmp_path: Path) -> None:
    other = tmp_path / "path" / "sketchscale-99.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: sketchscale\nVersion: 99.0\n")
    with shared_cluster({"path": str(tmp_path / "path")}) as address:
        engine = open_engine("dask", address=address, wait_s=120)
        (tmp_path / "tasks").mkdir()
        fails(engine, tmp_path / "tasks", SetupError, r"1 of 2 processes .* have sketchscale 99\.0; expected: 0\.1")
    assert not list((tmp_path / "tasks").iterdir())


def test_a_worker_that_hangs_while_a_driver_joins_is_an_error_in_time(tmp_path: Path) -> None:
    with shared_cluster({}) as address:
        with distributed.Client(address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=120)
            (worker,) = client.run(os.getpid).values()
        os.kill(worker, signal.SIGSTOP)
        engine = open_engine("dask", address=address, wait_s=6)
        words = rf"{address} does not answer: its workers do not.*--resume"
        assert seconds(lambda: fails(engine, tmp_path, UnreachableError, words)) < 60


class TestSharedCluster:
    """By address: the workers of the cluster, its GPU annotations, and other people's work on it."""

    @pytest.fixture(scope="class")
    @classmethod
    def address(cls) -> Iterator[str]:
        with shared_cluster({}, {"resources": "GPU=1"}) as address, distributed.Client(address) as client:
            client.wait_for_workers(2, timeout=120)
            yield address

    @pytest.fixture
    def engine(self, address: str) -> Iterator[Engine]:
        engine = open_engine("dask", address=address, wait_s=120, gpus_per_worker=0.5)
        yield engine
        engine.close()

    def test_workers_are_those_of_the_cluster(self, engine: Engine, tmp_path: Path) -> None:
        assert engine.workers == 2
        assert run_plan(plan_of(6, tmp_path), engine) == [i**2 for i in range(6)]

    def test_a_number_of_workers_is_kept_to(self, address: str, tmp_path: Path) -> None:
        engine = open_engine("dask", 1, address=address)
        try:
            started = time.monotonic()
            run_plan(replace(plan_of(6, tmp_path), fn=napped), engine)
            assert time.monotonic() - started > 6 * 0.2
        finally:
            engine.close()

    def test_what_needs_a_gpu_runs_where_one_is(self, engine: Engine, tmp_path: Path) -> None:
        plan = replace(plan_of(8, tmp_path), fn=napped, needs=Needs(gpu=True))
        assert len(set(run_plan(plan, engine))) == 1

    def test_other_peoples_work_is_left_alone(self, engine: Engine, address: str, tmp_path: Path) -> None:
        scenario = plan_of(2, tmp_path, faults={(0, 1): "sleep", (1, 1): "sleep"}).config
        with distributed.Client(address, set_as_default=False) as stranger:
            theirs = stranger.scatter({"theirs": 42}, broadcast=True)["theirs"]
            late = engine.submit(squared, plan_of(1, tmp_path).tasks[0], scenario)
            wait_for_file(tmp_path / "0000.1")
            assert engine.restart((late,)) is False
            assert late.cancelled()
            time.sleep(1)
            assert stranger.gather(theirs) == 42
            assert stranger.submit(pow, 2, 5).result(timeout=120) == 32


def test_a_large_configuration_reaches_every_worker(tmp_path: Path) -> None:
    engine = open_engine("dask", 2)
    try:
        faults = {(i, 9): "x" * 100 for i in range(20_000)}
        assert run_plan(plan_of(12, tmp_path, faults={**faults, (3, 1): "die"}), engine) == [i**2 for i in range(12)]
    finally:
        engine.close()


def test_a_script_without_main_guard_runs_and_leaves_nothing_behind(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    values, pids = done.stdout.strip().split("\n")
    assert values == "[0, 1, 4]"
    assert done.stderr == ""
    assert not list(tmp_path.glob("sketchscale-dask-*"))
    assert not [pid for pid in pids.split() if is_running(int(pid))]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_driver_that_is_ended_takes_its_cluster_along(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + "engine.submit(time.sleep, 600).result()\n")
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(tmp_path)}
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as driver:
        assert driver.stdout is not None
        driver.stdout.readline()
        pids = [int(pid) for pid in driver.stdout.readline().split()]
        assert all(map(is_running, pids))
        driver.send_signal(number)
        driver.wait(timeout=120)
    deadline = time.monotonic() + 60
    while any(map(is_running, pids)) or list(tmp_path.glob("sketchscale-dask-*")):
        assert time.monotonic() < deadline, "the cluster outlived its driver"
        time.sleep(0.1)


SCRIPT = """
import atexit, os, sys, time
from sketchscale.engine import open_engine

engine = open_engine("dask", 2)
atexit.register(engine.close)
def squared(number):
    print("on a worker")
    return number**2
print([engine.submit(squared, i).result() for i in range(3)])
print(os.getpid() * 0 + engine._session._own.pid, *(engine.submit(os.getpid).result() for _ in range(4)), flush=True)
"""
