"""The Ray engine: the suite of every engine on plain tasks and on warm workers, and what is Ray's own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

ray = pytest.importorskip("ray")

from sketchscale.engine import open_engine  # noqa: E402
from sketchscale.engine.base import Engine  # noqa: E402
from tests.conformance.engines import ProcessSuite  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One local Ray for the file; engines join it."""
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


class TestRay(ProcessSuite):
    def open_engine(self) -> Engine:
        return open_engine("ray", 2)
