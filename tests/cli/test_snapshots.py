"""What `--help` of every command says, and the schema of a study file, as text that a review sees change.

`python -m tests.cli.test_snapshots` writes the snapshots again. Their layout is that of the versions of typer, rich and
pydantic that deploy/constraints.txt names; with others this test is skipped.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).parent / "snapshots"
SCRIPT = """
import contextlib, io, json
from typer.main import get_command
from sketchscale.cli import app, run
found = {}
def say(*words):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        run(list(words))
    return "".join(line.rstrip() + "\\n" for line in out.getvalue().strip().splitlines())
def walk(command, *words):
    found["-".join(words) or "sketchscale"] = say(*words, "--help")
    for name, inner in getattr(command, "commands", {}).items():
        walk(inner, *words, name)
walk(get_command(app))
found["schema-of-a-study"] = say("schema")
print(json.dumps(found))
"""


def texts() -> dict[str, str]:
    """What is to be kept, by name, of another process: typer reads the width when it is imported."""
    plain = {name: value for name, value in os.environ.items() if "COLOR" not in name and name != "GITHUB_ACTIONS"}
    env = plain | {"TERMINAL_WIDTH": "100", "COLUMNS": "100", "TERM": "dumb"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_help_and_schema_are_as_kept() -> None:
    constraints = (ROOT / "deploy" / "constraints.txt").read_text("utf-8")
    pinned = re.findall(r"^(typer|rich|pydantic)==(\S+)", constraints, re.MULTILINE)
    assert len(pinned) == 3
    if other := [f"{name} {version}" for name, version in pinned if importlib.metadata.version(name) != version]:
        pytest.skip(f"the snapshots have the layout of {', '.join(other)}")
    kept = {path.stem: path.read_text("utf-8") for path in FOLDER.glob("*.txt")}
    assert texts() == kept, "if this was meant: python -m tests.cli.test_snapshots"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for stale in FOLDER.glob("*.txt"):
        stale.unlink()
    for name, text in texts().items():
        (FOLDER / f"{name}.txt").write_text(text, "utf-8")
