"""Writes the map of the package into sketchscale/README.md: every file in the words of its first line, and the layers.

python -m tests.house_map
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sketchscale"
PAGE = PACKAGE / "README.md"


def first_words(path: Path) -> str:
    """The first sentence of a module's docstring, without its full stop."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return re.split(r"[.:](?=\s|$)", " ".join(text.split("\n\n")[0].split()))[0]


def lines_of(folder: Path, depth: int = 0) -> Iterator[str]:
    """A line for each file and folder, files first."""
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield f"{'  ' * depth}{path.name:<24} {first_words(path)}".rstrip()
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__"):
        if any(inner.rglob("*.py")):
            yield f"{'  ' * depth}{inner.name + '/':<24} {first_words(inner / '__init__.py')}".rstrip()
            yield from lines_of(inner, depth + 1)


def layers() -> str:
    """The layers of pyproject.toml, from the top."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"][0]
    return "\n".join(layer for layer in contract["layers"] if layer != "__main__")


def with_map(page: str) -> str:
    """The page with both lists replaced."""
    for name, text in (("layers", layers()), ("map", "\n".join(lines_of(PACKAGE)))):
        block = f"<!-- {name} -->\n```\n{text}\n```\n<!-- end of {name} -->"
        page = re.sub(
            f"<!-- {name} -->.*?<!-- end of {name} -->", lambda match, block=block: block, page, flags=re.DOTALL
        )
    return page


if __name__ == "__main__":
    PAGE.write_text(with_map(PAGE.read_text("utf-8")), "utf-8")
