"""Refuse a cluster with other versions of Python or packages, which would fail in many ways or write other bytes. The
questions use only the standard library, so that any worker can answer them.
"""

from __future__ import annotations

import asyncio
import platform
from collections import Counter
from collections.abc import Callable
from importlib import metadata
from typing import Any

from sketchscale.errors import SetupError

__all__ = ["check_versions"]

_PARTS = {"sketchscale": 3, "dask": 3, "distributed": 3, "torch": 2, "zarr": 2, "python": 2}
"""How many parts of each version must agree; a build such as +cpu may differ."""


async def check_versions(client: Any, address: str) -> None:
    """Compare the versions of every worker and the scheduler with those of this process.

    Raises:
        SetupError: names the first package that differs, how many processes differ, and what to install.
    """
    for package, answers in zip(_PARTS, await asyncio.gather(*(_ask(client, name) for name in _PARTS)), strict=True):
        function, arguments = _question(package)
        here, parts = function(*arguments), _PARTS[package]
        others = Counter(found for found in answers.values() if _public(found)[:parts] != _public(here)[:parts])
        if others:
            found, count = others.most_common(1)[0]
            wanted = f"Python {here}" if package == "python" else f"{package}=={here}"
            raise SetupError(
                f"{count} of {len(answers)} processes of the Dask cluster at {address} have {package} {found}; "
                f"expected: {here}, as here; to fix: install {wanted} there, or start it from the same image"
            )


async def _ask(client: Any, package: str) -> dict[str, str]:
    """Return the version in each process; "none" if it is not installed."""
    function, arguments = _question(package)
    answers = dict(await client.run(function, *arguments, on_error="return"))
    try:
        answers["scheduler"] = await client.run_on_scheduler(function, *arguments)
    except metadata.PackageNotFoundError as error:
        answers["scheduler"] = error
    return {process: "none" if isinstance(found, Exception) else found for process, found in answers.items()}


def _question(package: str) -> tuple[Callable[..., str], tuple[str, ...]]:
    return (platform.python_version, ()) if package == "python" else (metadata.version, (package,))


def _public(version: str) -> list[str]:
    return version.partition("+")[0].split(".")
