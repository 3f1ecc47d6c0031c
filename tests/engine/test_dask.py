from __future__ import annotations

from typing import Any

import pytest

from sketchscale.engine import open_engine
from sketchscale.engine.base import Engine
from tests.conformance.engines import ClusterSuite

pytest.importorskip("distributed")


class TestDask(ClusterSuite):
    def open_engine(self, **options: Any) -> Engine:
        return open_engine("dask", 2, **options)
