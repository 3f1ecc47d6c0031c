"""Nodes of a Ray cluster are killed while a plan runs, and others join: the same bytes as in series."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

pytest.importorskip("ray")

from ray.cluster_utils import Cluster

from sketchscale.engine import open_engine
from sketchscale.engine.base import Event, Needs, run_plan
from tests.chaos.copying import copying, in_series, written

pytestmark = pytest.mark.slow

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}

SOON = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 3}
"""A dead node is noticed after 3 s; until then Ray sends it tasks, and these wait."""


@pytest.fixture
def cluster() -> Iterator[Any]:
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "_system_config": SOON})
    yield cluster
    cluster.shutdown()


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.nightly)])
def test_killed_nodes_change_no_byte(kills: int, cluster: Any, tmp_path: Path) -> None:
    seed, count, started = random.randrange(10**6), 30 * kills, time.monotonic()
    draw = random.Random(seed)
    nodes = [cluster.add_node(**NODE) for _ in range(2)]
    expected = in_series(tmp_path / "series", count)
    plan, ledger = copying(tmp_path, count, seconds=0.1)
    at = sorted(draw.sample(range(1, count - 9), kills))
    killed: list[int] = []

    def replace_a_node(event: Event) -> None:
        if at and event.kind == "done" and event.done >= at[0]:
            killed.append(at.pop(0))
            cluster.remove_node(nodes.pop(draw.randrange(2)), allow_graceful=False)
            nodes.append(cluster.add_node(wait=False, **NODE))

    engine = open_engine("ray", 2, address=cluster.address)
    try:
        needs = Needs(warm=draw.random() < 0.5)
        run_plan(replace(plan, needs=needs), engine, ledger=ledger, on_event=replace_a_node)
    finally:
        engine.close()
    assert written(tmp_path) == expected, f"seed {seed}"
    assert len(killed) == kills, f"seed {seed}"
    assert time.monotonic() - started < 300 + 60 * kills, f"seed {seed}"
