"""Which packages an installation without extras brings, and who asks for each; as they are installed here.

python -m tests.core_packages > deploy/packages.txt
"""

from __future__ import annotations

import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["core_packages", "table"]

_ROOT = Path(__file__).parents[1]
_TITLE = """# What `pip install -c deploy/constraints.txt .` brings, and who asks for it; held by tests/test_extras.py.
#   python -m tests.core_packages > deploy/packages.txt
"""


def core_packages() -> dict[str, set[str]]:
    """Name of each package, and of those that require it."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    waiting = [(Requirement(text), project["name"]) for text in project["dependencies"]]
    found: dict[str, set[str]] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted, by = waiting.pop()
        name = canonicalize_name(wanted.name)
        found.setdefault(name, set()).add(by)
        if (name, frozenset(wanted.extras)) in seen:
            continue
        seen.add((name, frozenset(wanted.extras)))
        for text in metadata.requires(name) or ():
            required = Requirement(text)
            extras = ("", *wanted.extras)
            if required.marker is None or any(required.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append((required, name))
    return found


def table() -> str:
    """A line for each package."""
    lines = [f"{name:<20}{', '.join(sorted(by))}\n" for name, by in sorted(core_packages().items())]
    return f"{_TITLE}# {len(lines)} packages\n" + "".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table())
