from __future__ import annotations

import pytest

from sketchscale.engine import ENGINES, open_engine
from sketchscale.engine.base import Engine
from sketchscale.errors import UnknownNameError
from tests.conformance.engines import EngineSuite, ProcessSuite


class TestSerial(EngineSuite):
    def open_engine(self) -> Engine:
        return open_engine("serial")


class TestThreads(EngineSuite):
    def open_engine(self) -> Engine:
        return open_engine("threads", 3)


class TestProcesses(ProcessSuite):
    def open_engine(self) -> Engine:
        return open_engine("processes", 2)


def test_an_unknown_engine_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean 'threads'.*{', '.join(sorted(ENGINES))}"):
        open_engine("thread")
