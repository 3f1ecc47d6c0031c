"""Two jobs side by side in one process, each with its own server: nothing of one is read or written by the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sketchscale.config import Execution, SegmentOptions
from sketchscale.io.stores.settings import StorageSettings, using
from sketchscale.workflow.measure.measure import measure
from sketchscale.workflow.segment.segment import segment
from tests.cluster.results import results_of
from tests.io.stores.test_object_storage import copy_image
from tests.object_store import ABSENT, ENVIRONMENT, ObjectServer
from tests.pipeline import draw_nuclei, store_image

pytestmark = pytest.mark.slow


@pytest.fixture
def servers(s3_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """Endpoints of two servers with a bucket of the same name; neither is in the environment."""
    for name in (*ABSENT, "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    other = ObjectServer()
    for server in (s3_server, other):
        server.make_bucket("jobs")
    yield s3_server.endpoint, other.endpoint
    other.close()


def test_jobs_with_different_servers_do_not_meet(servers: tuple[str, str], tmp_path: Path, model: str) -> None:
    images = [store_image(tmp_path / f"{seed}.zarr", draw_nuclei((130, 200), seed)) for seed in range(2)]
    together = threading.Barrier(2)

    def job(number: int, engine: str) -> dict[str, bytes]:
        execution = Execution(engine=engine, workers=2, block=64, endpoint=servers[number], wait_s=20 + number)
        with using(StorageSettings(endpoint=servers[number])):
            copy_image(images[number], "s3://jobs/image.zarr")
        together.wait()
        segment("s3://jobs/image.zarr", SegmentOptions(model=model), execution)
        measure("s3://jobs/image.zarr", "nuclei", execution)
        with using(StorageSettings(endpoint=servers[number])):
            return results_of("s3://jobs/image.zarr")

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(job, range(2), ("threads", "processes")))
    for image, results in zip(images, found, strict=True):
        segment(image, SegmentOptions(model=model), Execution(engine="serial", block=64))
        measure(image, "nuclei", Execution(engine="serial", block=64))
        assert results == results_of(image)
