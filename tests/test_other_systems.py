"""What other systems lack (Windows: `fcntl` and much of `os` and `signal`) is not needed to import and to segment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_ABSENT = """
import os, signal, sys
for module in ("fcntl", "resource", "pwd", "grp", "termios", "syslog"):
    sys.modules[module] = None
for name in ("fork", "killpg", "sched_getaffinity", "getuid", "geteuid", "sysconf"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGUSR1"):
    if hasattr(signal, name):
        delattr(signal, name)
import importlib, pkgutil, sketchscale
def load(*packages):
    for package in packages:
        module = importlib.import_module(package)
        for found in pkgutil.walk_packages(getattr(module, "__path__", []), f"{package}."):
            if not found.name.startswith(("sketchscale.engine.ray", "sketchscale.engine.dask")):
                importlib.import_module(found.name)
"""


def _run(code: str) -> str:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", _ABSENT + code]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_stores_and_the_command_line_load_without_fcntl_and_blobs_are_changed() -> None:
    code = """
load("sketchscale.io", "sketchscale.engine", "sketchscale.cli")
import tempfile
from sketchscale.io.stores.blobs import change_blob, get_blob
with tempfile.TemporaryDirectory() as folder:
    change_blob(folder, "list", lambda old: b"1")
    change_blob(folder, "list", lambda old: old + b"2")
    print(get_blob(folder, "list").decode(), sorted(os.listdir(folder)))
"""
    assert _run(code) == "12 ['list']"


@pytest.mark.slow
def test_every_module_loads_and_an_image_is_segmented() -> None:
    code = """
load("sketchscale.config", "sketchscale.io", "sketchscale.annotations", "sketchscale.workflow", "sketchscale.reports")
import numpy
image = numpy.uint8(20 + 150 * (numpy.hypot(*(numpy.mgrid[:64, :64] - 32)) < 10))
print(sketchscale.segment(image).shape)
"""
    assert _run(code) == "(64, 64)"
