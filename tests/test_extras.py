"""What is offered is used: each extra has code behind it, and other packages of a user do not stop the tests."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from sketchscale.io.stores.addresses import STORES
from sketchscale.workflow.doctor import _OPTIONAL
from tests.core_packages import table

_ROOT = Path(__file__).parents[1]
_MODULES = {"pillow": "PIL", "scikit-image": "skimage", "scikit-learn": "sklearn"}
"""Names of modules that are not those of their packages."""

_BY_OTHERS = {"imagecodecs": "tifffile"}
"""Core packages that no line of ours imports, and who imports them for us."""

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


def _imports() -> Iterator[tuple[Path, str]]:
    """Each module that a file of ours imports, with the file."""
    for path in (_ROOT / "sketchscale").rglob("*.py"):
        for module in re.findall(r"^ *(?:import|from) ([\w.]+)", path.read_text("utf-8"), re.MULTILINE):
            yield path, "boto3" if module == "obstore.auth.boto3" else module.partition(".")[0]


def test_every_core_package_is_imported_by_a_line_that_needs_no_extra() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    core = {re.split(r"[\[>=<]", package)[0] for package in project["dependencies"]}
    extras = [module for packages in _extras().values() for module in packages]
    of_extras = {path for path, module in _imports() if module in extras}
    used = {module for path, module in _imports() if path not in of_extras}
    unused = {name for name in core if _MODULES.get(name, name.replace("-", "_")) not in used}
    assert unused == set(_BY_OTHERS)
    assert set(_BY_OTHERS.values()) <= used


def test_the_list_of_packages_is_that_of_the_tested_versions() -> None:
    pins = dict(line.split("==") for line in (_ROOT / "deploy" / "constraints.txt").read_text().split() if "==" in line)
    others = [name for name, version in pins.items() if _installed(name) not in (version, None)]
    if others:
        pytest.skip(f"other versions than in deploy/constraints.txt are installed: {', '.join(others[:5])}")
    assert (_ROOT / "deploy" / "packages.txt").read_text("utf-8") == table()


def _installed(name: str) -> str | None:
    """Its public version; a build such as +cpu may differ."""
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def test_every_package_of_every_extra_is_imported_somewhere() -> None:
    used = {module for _, module in _imports()} | {
        package for package, scheme in _BY_SCHEME.items() if scheme in STORES
    }
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
    collect = [python, "-m", "pytest", "--collect-only", "tests/test_errors.py", "tests/io/stores/test_blobs.py"]
    collected = subprocess.run(collect, cwd=_ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert collected.returncode == 0, collected.stdout + collected.stderr
    assert re.search(r"\d\d tests collected", collected.stdout)


def _environment(folder: Path) -> str:
    """A new environment that sees all packages of this one; its own come first. Returns its python."""
    venv.create(folder, with_pip=False)
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "outer.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return str(folder / "bin" / Path(sys.executable).name)
