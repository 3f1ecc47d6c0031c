"""Addresses relative to the driver's folder, on clusters whose workers were started in another one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sketchscale.config import Execution, SegmentOptions
from sketchscale.io.files.convert import ConvertConfig
from sketchscale.workflow.convert import convert_images
from sketchscale.workflow.measure.measure import measure
from sketchscale.workflow.segment.segment import segment
from sketchscale.workflow.train.where_next import NextOptions, where_next
from tests.cluster.results import results_of
from tests.engine.dask_processes import shared_cluster
from tests.pipeline import draw_nuclei, make_model

pytestmark = pytest.mark.slow


@pytest.fixture(params=["dask", "ray"])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Execution]:
    """How to join a cluster that was started in another folder than this process is in afterwards."""
    for name in ("there", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "there")
    if request.param == "dask":
        pytest.importorskip("distributed")
        with shared_cluster({}) as address:
            monkeypatch.chdir(tmp_path / "here")
            yield Execution(engine="dask", address=address, block=64)
        return
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 2, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    monkeypatch.chdir(tmp_path / "here")
    try:
        yield Execution(engine="ray", address=cluster.address, block=64)
    finally:
        cluster.shutdown()


def test_workers_in_another_folder_find_what_the_driver_names(elsewhere: Execution) -> None:
    make_model(Path("model"))
    options, serial = SegmentOptions(model="model", tile=64, overlap=16), Execution(engine="serial", block=64)
    np.save("pixels.npy", draw_nuclei((70, 130)))
    for name, execution in (("far.zarr", elsewhere), ("near.zarr", serial)):
        convert_images("pixels.npy", name, ConvertConfig(chunk=64, levels=1), execution)
        segment(name, options, execution)
        measure(name, execution=execution)
    assert results_of("far.zarr") == results_of("near.zarr")
    wanted = NextOptions(segment=options, n=2, size=32)
    assert where_next(["near.zarr"], wanted, elsewhere) == where_next(["near.zarr"], wanted, serial)
