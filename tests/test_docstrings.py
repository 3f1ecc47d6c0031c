"""The examples in docstrings run and give what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import sketchscale

ROOT = Path(sketchscale.__file__).parent


def modules_with_examples() -> list[str]:
    files = (path for path in sorted(ROOT.rglob("*.py")) if ">>> " in path.read_text("utf-8"))
    names = (".".join(path.relative_to(ROOT.parent).with_suffix("").parts) for path in files)
    return [name.removesuffix(".__init__") for name in names]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_run(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
