"""The pages for people: links lead somewhere, pictures exist, tables and maps agree with tree and benchmarks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.house_map import PAGE, with_map

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / name
    for name in ("README.md", "sketchscale/README.md", "benchmarks/README.md", "deploy/README.md", "tests/README.md")
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_pictures_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert f'id="{target[1:]}"' in text, target
        elif not re.match(r"https?://", target):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_named_in_prose_exist(page: Path) -> None:
    """Names such as `integration/merge.py`, from the page, the root or the package; my_... are the reader's own."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for name in re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|md|txt|toml|yaml|sbatch))`", text):
        if "my_" not in name:
            assert any((folder / name).exists() for folder in (ROOT, ROOT / "sketchscale", page.parent)), name


def test_the_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 250


def test_the_map_is_the_tree() -> None:
    page = PAGE.read_text("utf-8")
    assert with_map(page) == page, "run python -m tests.house_map"


def test_the_figures_are_what_the_benchmarks_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from write_figures import with_figures

    page = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    assert with_figures(page) == page, "run python benchmarks/write_figures.py"


def test_every_command_on_the_pages_is_one_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python FILE` and `python -m MODULE` name files that exist; README's blocks run in test_readme.py."""
    for page in PAGES:
        for script in re.findall(r"python (?:-m )?((?:benchmarks/|tests[./])[\w./]+)", page.read_text("utf-8")):
            path = script if script.endswith(".py") else script.replace(".", "/") + ".py"
            assert (ROOT / path).exists(), f"{page.name}: {script}"
