"""The Ray engine: the suite of every engine on plain tasks and on warm workers, and what is Ray's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

ray = pytest.importorskip("ray")

from sketchscale.engine import open_engine  # noqa: E402
from sketchscale.engine.base import Engine, Json, Needs  # noqa: E402
from tests.conformance.engines import ClusterSuite, ProcessSuite  # noqa: E402


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
