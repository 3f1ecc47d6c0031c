"""deploy/README.md: every file is in its table, and the command there is the one at the file's top."""

from __future__ import annotations

import re

from tests.deploy.artefacts import DEPLOY

ROWS = re.findall(r"^\| `([^`]+)` \| (.+?) \| `(.+)` \|$", (DEPLOY / "README.md").read_text(), flags=re.MULTILINE)


def test_every_file_is_in_the_table() -> None:
    files = {str(p.relative_to(DEPLOY)) for p in DEPLOY.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert {file for file, _, _ in ROWS} == files - {"README.md"}


def test_every_command_stands_at_the_top_of_its_file() -> None:
    for file, _, command in ROWS:
        if not file.endswith(".txt"):
            head = (DEPLOY / file).read_text()[:1500]
            assert command in re.sub(r"\s*\\\n(?:#|//)\s*", " ", head), file


def test_every_file_named_in_a_command_exists() -> None:
    for _, _, command in ROWS:
        for named in re.findall(r"deploy/[\w./-]+", command):
            assert (DEPLOY.parent / named).exists(), named
