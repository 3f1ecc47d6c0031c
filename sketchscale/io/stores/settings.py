"""Which S3-compatible server is asked, and for how long: what one job says of storage, whatever other jobs say.

Two jobs in one process run side by side, so none may write to the environment that both read. A job's settings are a
context variable instead: they hold for the code inside `using`, and an engine takes them to its workers with every
task. Where no job says anything, the user's environment does: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, and
SKETCHSCALE_WAIT_S.
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
    """What a job says of storage; picklable, and without secrets.

    Attributes:
        wait_s: how long a store may fail to answer.
        endpoint: of S3-compatible storage; None is Amazon's own.
    """

    wait_s: float = DEFAULT_WAIT_S
    endpoint: str | None = None


_OF_THE_JOB: ContextVar[StorageSettings | None] = ContextVar("storage settings of the job", default=None)


def storage_settings() -> StorageSettings:
    """Those of the job that this code runs for, or else what the environment says.

    Raises:
        InputError: a variable of the environment is no positive number, or no address.
    """
    return _OF_THE_JOB.get() or StorageSettings(wait_s=_environments_wait_s(), endpoint=_environments_endpoint())


def chosen_settings(wait_s: float, endpoint: str | None) -> StorageSettings:
    """The settings of a new job: what is not chosen is as it is here.

    Args:
        wait_s: the default of 60 s chooses nothing.

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
    """Inside, in this thread and in what it starts with a copy of its context, these settings hold.

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
    """The address of an S3-compatible server, if it is one.

    Raises:
        InputError: not http(s)://, or with a user name in it.

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


def _environments_wait_s() -> float:
    text = os.environ.get(_WAIT_VARIABLE, f"{DEFAULT_WAIT_S}")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise InputError.of(found=f"{_WAIT_VARIABLE}={text!r}", expected="seconds, more than 0", fix="--wait 60")
    return seconds


def _environments_endpoint() -> str | None:
    found = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return check_endpoint(found) if found else None
