"""The first use of compiled kernels says that it compiles; later ones do not."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sketchscale.cli.messages import logged_to_stderr
from sketchscale.cli.options import announcing_compilation
from sketchscale.engine.base import Event
from sketchscale.workflow.compiling import _kernels, is_uncompiled

SOURCE = """
import numba

@numba.njit(cache=True)
def twice(x):
    return 2 * x

@numba.njit(cache=True)
def never_called(x):
    return x
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A package with kernels that were never called; its cache is a folder of its own."""
    (tmp_path / "kernels_of_a_test").mkdir()
    (tmp_path / "kernels_of_a_test/__init__.py").write_text("")
    (tmp_path / "kernels_of_a_test/sums.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    import kernels_of_a_test.sums as module  # type: ignore[import-not-found]

    yield module
    for name in [name for name in sys.modules if name.startswith("kernels_of_a_test")]:
        del sys.modules[name]


def test_a_package_is_uncompiled_until_the_first_call(package: ModuleType) -> None:
    assert is_uncompiled("kernels_of_a_test")
    assert package.twice(3) == 6
    assert not is_uncompiled("kernels_of_a_test")
    shutil.rmtree(package.twice.stats.cache_path)
    assert is_uncompiled("kernels_of_a_test")


def test_a_package_without_kernels_has_nothing_to_compile() -> None:
    assert not is_uncompiled("sketchscale.reports")


def test_it_is_said_once_before_the_stage_and_only_where_it_is_true(
    package: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    passed: list[Event] = []

    def lines() -> list[str]:
        on_event = announcing_compilation(passed.append, "outline", "kernels_of_a_test", 12)
        with logged_to_stderr():
            on_event(Event(kind="start", stage="predict", total=2))
            assert capsys.readouterr().err == ""
            for done, total in ((2, 2), (0, 2), (0, 2)):  # all tasks of the first one are done
                on_event(Event(kind="start", stage="outline", done=done, total=total))
        return capsys.readouterr().err.splitlines()

    assert lines() == ["compiling kernels for this machine, once (about 12 s)"]
    package.twice(1)
    assert lines() == []
    assert len(passed) == 8


def test_the_kernels_of_both_commands_are_found() -> None:
    for command, package in (("segment", "integration"), ("measure", "objects.measurement")):
        importlib.import_module(f"sketchscale.workflow.{command}.{command}")
        assert len(list(_kernels(f"sketchscale.{package}"))) > 5
