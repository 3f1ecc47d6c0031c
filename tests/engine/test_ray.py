"""The Ray engine: the suite of every engine on plain tasks and on warm workers, and what is Ray's own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

ray = pytest.importorskip("ray")

from sketchscale.engine import open_engine  # noqa: E402
from sketchscale.engine.base import Engine, Json, Needs  # noqa: E402
from sketchscale.engine.turns import turn  # noqa: E402
from sketchscale.errors import SetupError  # noqa: E402
from tests.conformance.engines import ClusterSuite, ProcessSuite  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One local Ray for the file; engines find it in their process."""
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        log_to_driver=False,
        configure_logging=False,
    )
    yield
    ray.shutdown()


class TestPlainTasks(ClusterSuite):
    def open_engine(self, **options: Any) -> Engine:
        return open_engine("ray", 2, **options)


class Warm:
    """An engine that runs everything on its warm workers."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def workers(self) -> int:
        return self.engine.workers

    @property
    def in_flight(self) -> int:
        return self.engine.in_flight

    def submit(self, fn: Callable[..., Json], /, *args: Any, needs: Needs | None = None) -> Future[Json]:
        return self.engine.submit(fn, *args, needs=Needs(warm=True))

    def restart(self, late: Collection[Future[Json]] = ()) -> bool:
        return self.engine.restart(late)

    def close(self) -> None:
        self.engine.close()


class TestWarmWorkers(ProcessSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Iterator[Engine]:
        engine = Warm(open_engine("ray", 2))
        yield engine
        engine.close()


class Refused(Exception):
    """Cannot travel: it wants two arguments and keeps one."""

    def __init__(self, key: str, cause: str) -> None:
        super().__init__(key)


def refuse(number: int) -> int:
    raise Refused("k", "c")


def pids_of(number: int, data: bytes) -> tuple[int, int]:
    """This process, and the identity of the data in it."""
    time.sleep(0.02)
    return os.getpid(), id(data)


@dataclass(slots=True)
class Overlap:
    """What runs at once in a warm worker: of everything, and inside turns."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    inside: int = 0
    most: int = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        yield
        with self.lock:
            self.inside -= 1


EVERYTHING, TURNS = Overlap(), Overlap()


def overlapping(number: int) -> tuple[int, int]:
    with EVERYTHING.counted():
        time.sleep(0.05)
        with turn(), TURNS.counted():
            time.sleep(0.02)
    return EVERYTHING.most, TURNS.most


@pytest.fixture(scope="module")
def engine(cluster: None) -> Iterator[Engine]:
    engine = open_engine("ray", 1)
    yield engine
    engine.close()


def test_calls_of_a_warm_worker_overlap_outside_their_turns_only(engine: Engine) -> None:
    futures = [engine.submit(overlapping, i, needs=Needs(warm=True)) for i in range(9)]
    found = [future.result(timeout=60) for future in futures]
    assert max(most for most, _ in found) == 3
    assert max(turns for _, turns in found) == 1


@pytest.mark.parametrize("size", [1_000, 30_000, 3_000_000], ids=["small", "with the call", "object store"])
def test_an_argument_that_comes_again_is_unpacked_once_in_a_worker(size: int, engine: Engine) -> None:
    data = bytes(size)
    futures = [engine.submit(pids_of, i, data, needs=Needs(warm=True)) for i in range(12)]
    seen = [future.result(timeout=60) for future in futures]
    again = [identity for _, identity in seen[1:]]
    assert (len(set(again)) == 1) == (size > 4_000)


def test_an_exception_that_cannot_travel_arrives_in_words(engine: Engine) -> None:
    with pytest.raises(RuntimeError, match="Refused: k"):
        engine.submit(refuse, 1).result(timeout=60)


def test_more_workers_than_cores_are_refused() -> None:
    engine = open_engine("ray", 3)
    with pytest.raises(SetupError, match=r"3 workers asked of a Ray cluster with 2 CPUs.*--workers 2"):
        engine.submit(abs, -1).result(timeout=60)
    engine.close()


_SCRIPT = """
import json, os, threading, time
from sketchscale.engine import open_engine
from sketchscale.engine.base import Needs
{setup}
engine = open_engine("ray", {workers}, {options})
started = time.monotonic()
try:
    found = [engine.submit(abs, -2).result(), engine.submit(os.getpid, needs=Needs(warm=True)).result() > 0]
except Exception as error:
    found = [type(error).__name__, str(error)]
seconds = time.monotonic() - started
address = getattr(engine._cluster, "folder", None)
import ray
gcs = ray.get_runtime_context().gcs_address if ray.is_initialized() else None
{then}
engine.close()
left = [t.name for t in threading.enumerate() if t.name.startswith("sketchscale")]
print(json.dumps([found, seconds, ray.is_initialized(), left, address and os.path.exists(address)]))
"""


def in_process(workers: int | None = 1, options: str = "", setup: str = "", then: str = "") -> list[Any]:
    """A driver of its own, without the settings of these tests; nothing may appear on stderr."""
    script = _SCRIPT.format(workers=workers, options=options, setup=setup, then=then)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", script],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1, done.stdout
    found: list[Any] = json.loads(lines[0])
    return found


def test_a_local_instance_has_a_token_of_its_own_and_leaves_nothing_behind() -> None:
    """A second process that has no token is refused by the first one's head."""
    knock = "from sketchscale.engine.ray.cluster import _ask_unknown; assert _ask_unknown(gcs, False, 5.0) is True"
    found, _, running, left, folder = in_process(then=knock)
    assert (found, running, left, folder) == ([2, True], False, [], False)
    assert not (Path.home() / ".ray" / "auth_token").exists() or "RAY_AUTH_TOKEN" in os.environ


def test_an_address_that_does_not_answer_is_an_error_within_the_waiting_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (kind, words), seconds, *_ = in_process(options=f"address='127.0.0.1:{port}', wait_s=4")
    assert kind == "UnreachableError"
    assert f"the Ray cluster at 127.0.0.1:{port} does not answer" in words
    assert seconds < 60


def test_a_cluster_that_lets_anyone_in_is_refused_unless_that_is_said(cluster: None) -> None:
    address = ray.get_runtime_context().gcs_address
    (kind, words), *_ = in_process(options=f"address={address!r}")
    assert kind == "SetupError"
    assert "lets anyone in who reaches its port" in words
    found, *_ = in_process(options=f"address={address!r}", setup="os.environ['RAY_AUTH_MODE'] = 'disabled'")
    assert found == [2, True]
