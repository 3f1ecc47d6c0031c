"""What is offered is used: each extra has code behind it, and other packages of a user do not stop the tests."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from sketchscale.io.store import STORES
from sketchscale.workflow.doctor import _OPTIONAL

_ROOT = Path(__file__).parents[1]
_BY_SCHEME = {"s3fs": "fsspec+s3"}
"""Packages that no line of ours imports, because fsspec does, and the scheme of ours that needs it."""


def _extras() -> dict[str, set[str]]:
    """The packages of each extra of users."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    return {
        name: {re.split(r"[\[>=<]", package)[0] for package in packages}
        for name, packages in extras.items()
        if name not in ("test", "all")
    }


def _imports() -> Iterator[str]:
    for path in (_ROOT / "sketchscale").rglob("*.py"):
        for module in re.findall(r"^ *(?:import|from) ([\w.]+)", path.read_text("utf-8"), re.MULTILINE):
            yield "boto3" if module == "obstore.auth.boto3" else module.partition(".")[0]


def test_every_package_of_every_extra_is_imported_somewhere() -> None:
    used = set(_imports()) | {package for package, scheme in _BY_SCHEME.items() if scheme in STORES}
    assert {name: packages - used for name, packages in _extras().items()} == {name: set() for name in _extras()}


def test_doctor_looks_for_the_packages_of_all_extras_and_for_no_others() -> None:
    assert {(package, extra) for extra, packages in _extras().items() for package in packages} == set(_OPTIONAL.items())
    assert set(_OPTIONAL.values()) == set(_extras())


def test_the_extra_all_is_all_of_them() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (everything,) = project["optional-dependencies"]["all"]
    assert everything == f"sketchscale[{','.join(_extras())}]"


@pytest.mark.slow
def test_with_napari_installed_the_tests_are_still_collected(tmp_path: Path) -> None:
    """Its plugins for pytest give deprecation warnings while they load; in these tests warnings are errors."""
    python = _environment(tmp_path / "venv")
    constraints = str(_ROOT / "deploy" / "constraints.txt")
    pip = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "-c", constraints, "napari>=0.6"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if pip.returncode:
        pytest.skip(f"pip cannot install napari here: {pip.stderr.strip().splitlines()[-1][:200]}")
    collect = [python, "-m", "pytest", "--collect-only", "tests/test_errors.py", "tests/io/test_blobs.py"]
    collected = subprocess.run(collect, cwd=_ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert collected.returncode == 0, collected.stdout + collected.stderr
    assert re.search(r"\d\d tests collected", collected.stdout)


def _environment(folder: Path) -> str:
    """A new environment that sees all packages of this one; its own come first. Returns its python."""
    venv.create(folder, with_pip=False)
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "outer.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return str(folder / "bin" / Path(sys.executable).name)
