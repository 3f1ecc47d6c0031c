"""A verb is a job of its own: what holds for all of it stands here, once for all verbs.

    @verb
    def measure(address, ..., execution=None, ...)

Storage settings that `execution` names hold from the first byte that is read to the last one that is written, and not
for other jobs of the process.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from sketchscale.config import Execution
from sketchscale.io.storage_settings import chosen_settings, using

__all__ = ["verb"]

P = ParamSpec("P")
T = TypeVar("T")


def verb(work: Callable[P, T]) -> Callable[P, T]:
    """The work inside the settings that its argument `execution` names."""
    signature = inspect.signature(work)

    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        execution = signature.bind(*args, **kwargs).arguments.get("execution") or Execution()
        with using(chosen_settings(execution.wait_s, execution.endpoint)):
            return work(*args, **kwargs)

    return run
