"""Storage settings of one job: which S3-compatible server to use, and how long to wait for an answer.

Several jobs can run in one process, so a job must not write to the environment. Its settings are a context variable:
they hold for the code inside `using`, and an engine sends them to its workers with every task. What a job leaves open
comes from the environment: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, and SKETCHSCALE_WAIT_S.
"""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from sketchscale.errors import InputError

__all__ = ["DEFAULT_WAIT_S", "StorageSettings", "check_endpoint", "chosen_settings", "storage_settings", "using"]

DEFAULT_WAIT_S = 60.0

_WAIT_VARIABLE = "SKETCHSCALE_WAIT_S"


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """Storage settings of a job; picklable, without secrets.

    Attributes:
        wait_s: how long a store may fail to answer.
        endpoint: of S3-compatible storage; None means Amazon.
    """

    wait_s: float = DEFAULT_WAIT_S
    endpoint: str | None = None


_OF_THE_JOB: ContextVar[StorageSettings | None] = ContextVar("storage settings of the job", default=None)


def storage_settings() -> StorageSettings:
    """Return the settings of the job that this code runs for, or else those of the environment.

    Raises:
        InputError: a variable of the environment is not a positive number or not an address.
    """
    chosen = _OF_THE_JOB.get()
    if chosen is not None:
        return chosen
    text = os.environ.get(_WAIT_VARIABLE, f"{DEFAULT_WAIT_S}")
    try:
        wait_s = float(text)
    except ValueError:
        wait_s = 0.0
    if not wait_s > 0:
        raise InputError.of(found=f"{_WAIT_VARIABLE}={text!r}", expected="seconds, more than 0", fix="--wait 60")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return StorageSettings(wait_s=wait_s, endpoint=check_endpoint(endpoint) if endpoint else None)


def chosen_settings(wait_s: float, endpoint: str | None) -> StorageSettings:
    """Return the settings of a new job; what is not chosen is taken from the current settings.

    Args:
        wait_s: the default of 60 s counts as not chosen.

    >>> chosen_settings(5, "http://127.0.0.1:9000/")
    StorageSettings(wait_s=5, endpoint='http://127.0.0.1:9000')
    """
    here = storage_settings()
    return StorageSettings(
        wait_s=here.wait_s if wait_s == DEFAULT_WAIT_S else wait_s,
        endpoint=check_endpoint(endpoint) if endpoint else here.endpoint,
    )


@contextmanager
def using(settings: StorageSettings) -> Iterator[None]:
    """Apply these settings inside the block, in this thread and in what it starts with a copy of its context.

    >>> with using(StorageSettings(wait_s=5)):
    ...     storage_settings().wait_s
    5
    """
    token = _OF_THE_JOB.set(settings)
    try:
        yield
    finally:
        _OF_THE_JOB.reset(token)


def check_endpoint(endpoint: str) -> str:
    """Return the address of an S3-compatible server after checking it.

    Raises:
        InputError: not http(s)://, or with a user name.

    >>> check_endpoint("http://127.0.0.1:9000")
    'http://127.0.0.1:9000'
    """
    parts = urllib.parse.urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        shown = endpoint.rpartition("@")[2]
        raise InputError.of(
            found=f"endpoint {shown!r}", expected="http(s)://host:port, without a user name", fix="correct --endpoint"
        )
    return endpoint.rstrip("/")
