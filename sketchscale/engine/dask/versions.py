"""Refuses a cluster whose Python or packages differ from those of the driver: it would fail in a hundred odd ways, or
write other bytes. Asked with functions of the standard library only, so that any worker can answer.
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
"""How many parts of each version have to agree; a build such as +cpu may differ."""


async def check_versions(client: Any, address: str) -> None:
    """Ask every worker and the scheduler.

    Raises:
        SetupError: names the first package that differs, how many workers have what, and what to install.
    """
    for package, answers in zip(_PARTS, await asyncio.gather(*(_ask(client, name) for name in _PARTS)), strict=True):
        here = _here(package)
        others = Counter(found for found in answers.values() if not _alike(package, found, here))
        if others:
            found, count = others.most_common(1)[0]
            wanted = f"Python {here}" if package == "python" else f"{package}=={here}"
            raise SetupError(
                f"{count} of {len(answers)} processes of the Dask cluster at {address} have {package} {found}; "
                f"expected: {here}, as here; to fix: install {wanted} there, or start it from the same image"
            )


async def _ask(client: Any, package: str) -> dict[str, str]:
    """Version by process; "none" where it is not installed."""
    function, arguments = _question(package)
    answers = dict(await client.run(function, *arguments, on_error="return"))
    try:
        answers["scheduler"] = await client.run_on_scheduler(function, *arguments)
    except metadata.PackageNotFoundError as error:
        answers["scheduler"] = error
    return {process: "none" if isinstance(found, Exception) else found for process, found in answers.items()}


def _question(package: str) -> tuple[Callable[..., str], tuple[str, ...]]:
    return (platform.python_version, ()) if package == "python" else (metadata.version, (package,))


def _here(package: str) -> str:
    function, arguments = _question(package)
    return function(*arguments)


def _alike(package: str, found: str, here: str) -> bool:
    parts = _PARTS[package]
    return _public(found)[:parts] == _public(here)[:parts]


def _public(version: str) -> list[str]:
    return version.partition("+")[0].split(".")
