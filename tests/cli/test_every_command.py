"""The quick suite calls every command, and every module can be imported; a new one without a test fails here."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import sketchscale
from sketchscale.cli import app

ROOT = Path(__file__).resolve().parents[2]


def commands(command: Any, name: str = "") -> Iterator[str]:
    """Such as "segment" and "model show"."""
    for word, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {word}".strip())
    if not hasattr(command, "commands"):
        yield name


def quick_calls() -> set[str]:
    """First words of all lists of words in quick tests, and of README's lines that a test runs."""
    files = (path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__))
    quick = [
        text for text in (path.read_text("utf-8") for path in files) if "pytestmark = pytest.mark.slow" not in text
    ]
    readme = re.findall(r"<!-- run[^>]*-->\n```bash\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    lists = re.findall(r"""[(\[]\s*["']([a-z-]+)["'](?:,\s*["']([a-z-]+)["'])?""", "\n".join(quick))
    lines = re.findall(r"^sketchscale ([a-z-]+)(?: ([a-z-]+))?", "\n".join(readme), re.MULTILINE)
    return {word for word, _ in lists + lines} | {f"{word} {more}" for word, more in lists + lines if more}


@pytest.mark.parametrize("command", sorted(commands(get_command(app))))
def test_a_command_is_called_by_a_quick_test(command: str) -> None:
    assert command in quick_calls()


@pytest.mark.parametrize(
    "module",
    sorted(m.name for m in pkgutil.walk_packages(sketchscale.__path__, "sketchscale.") if m.name[-9:] != ".__main__"),
)
def test_a_module_can_be_imported_without_a_warning(module: str) -> None:
    assert importlib.import_module(module).__name__ == module
