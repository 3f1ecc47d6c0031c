"""Dask and Ray start on this machine and run a task: the quick suite's share of test_dask.py and test_ray.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from sketchscale.engine import open_engine
from sketchscale.engine.base import run_plan
from tests.conformance.engines import plan_of


@pytest.mark.parametrize(("name", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_cluster_on_this_machine_runs_tasks(name: str, package: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install 'sketchscale[{name}]'")
    engine = open_engine(name, 1)
    try:
        assert run_plan(plan_of(3, tmp_path), engine) == [0, 1, 4]
    finally:
        engine.close()
