"""A process that kills itself, as the system would, before its n-th rename or link, in which every write ends."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

_SCRIPT = """
import json, os, sys
arguments = json.loads(sys.argv[1])
import sketchscale.io.ome_zarr.table
left = arguments["operations"]

def dying(function):
    def call(*args, **kwargs):
        global left
        left -= "__pycache__" not in str(args[1])  # numba keeps what it compiled, in a new checkout
        if left == 0 and "__pycache__" not in str(args[1]):
            os.kill(os.getpid(), 9)
        return function(*args, **kwargs)
    return call

os.replace = dying(os.replace)
os.link = dying(os.link)
from sketchscale.cli import run
codes = [run(command) for command in arguments["commands"]]
print(arguments["operations"] - left)
sys.exit(max(codes))
"""

NEVER = 10**9


def run_killed(commands: list[list[str]], operations: int = NEVER) -> subprocess.CompletedProcess[str]:
    """Run commands of the command line; returns -9 when killed; the last line of stdout is the number of operations."""
    arguments: dict[str, Any] = {"commands": commands, "operations": operations}
    script = [sys.executable, "-c", _SCRIPT, json.dumps(arguments)]
    return subprocess.run(script, capture_output=True, text=True, check=False, timeout=300)
