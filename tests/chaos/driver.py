"""A driver in a process of its own, to be killed: the command line as a user starts it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def start(*command: str) -> subprocess.Popen[str]:
    """`sketchscale <command>`, with what it says on its pipes."""
    script = [sys.executable, "-W", "ignore", "-c", "from sketchscale.cli import main; main()", *command]
    return subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def records(image: Path) -> int:
    """How many tasks of a run on a local image are recorded."""
    return sum(1 for path in image.glob(".sketchscale/*/ledger/*/*.json"))


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[str], deadline: float) -> bool:
    """Whether it became ready before the process ended; the deadline is asserted."""
    while not ready():
        assert time.monotonic() < deadline, "nothing moved before the deadline"
        if process.poll() is not None:
            return ready()
        time.sleep(0.005)
    return True
