from __future__ import annotations

import pytest

from sketchscale.engine import open_engine
from sketchscale.engine.base import Engine
from tests.conformance.engines import ProcessSuite

pytest.importorskip("distributed")


class TestDask(ProcessSuite):
    def open_engine(self) -> Engine:
        return open_engine("dask", 2)
