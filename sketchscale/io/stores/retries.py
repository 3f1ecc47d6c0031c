"""Retries of storage requests, and the meaning of the answers.

Every request to object storage goes through `persist`. A failure that may pass (5xx, a broken or silent connection, a
damaged body) is retried with growing pauses for `wait_s` seconds; then it is an `UnreachableError` that names the key.
A failure that will not pass (no permission, no such bucket, expired credentials) is an error at once, with a way to fix
it.

Messages contain the status and the error code of the server, never whole answers or requests, so they hold no secrets.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sketchscale.errors import InputError, MissingDataError, OutputError, SetupError, SketchscaleError, UnreachableError
from sketchscale.io.stores.settings import storage_settings

__all__ = ["NotStoredError", "code_of", "persist", "refusal", "status_of", "within"]

_RATE = 1e6
"""Bytes per second; a slower transfer counts as no answer."""

_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")

T = TypeVar("T")


class NotStoredError(OSError):
    """A store acknowledged a write that it did not make."""


async def persist(key: str, ask: Callable[[float], Awaitable[T]], *, writing: bool = False) -> T:
    """Return the answer to a request, and retry while it fails for a reason that may pass.

    Args:
        key: full address, for errors.
        ask: makes one attempt, within the given seconds.
        writing: whether a refusal is an OutputError or an InputError.

    Raises:
        UnreachableError: no answer within the `wait_s` of the job.
        InputError, OutputError: the store refuses the request.
        FileNotFoundError: and other errors of `ask` that are answers.
    """
    wait, started, attempt = storage_settings().wait_s, time.monotonic(), 0
    while True:
        attempt += 1
        left = started + wait - time.monotonic()
        try:
            return await ask(max(0.1, min(wait / 3, left)))
        except TimeoutError:
            cause = "no answer in time"
        except Exception as error:
            if _is_answer(error):
                raise
            refused = refusal(key, error, writing=writing)
            if refused is not None:
                raise refused from error
            cause = _cause(error)
        pause = min(0.05 * 2**attempt, wait / 8) * random.uniform(0.5, 1.0)
        if time.monotonic() + pause >= started + wait:
            raise UnreachableError.after(key, cause, attempts=attempt, seconds=time.monotonic() - started)
        await asyncio.sleep(pause)


async def within(seconds: float, work: Awaitable[T], size: int = 0) -> T:
    """Return the result of one step; the time limit grows with the `size` in bytes that it moves."""
    return await asyncio.wait_for(work, seconds + size / _RATE)


def _is_answer(error: Exception) -> bool:
    """Return whether an error is an answer: the object exists or not, or a typed error from further down."""
    if isinstance(error, FileNotFoundError):
        return code_of(error) not in _NO_BUCKET
    return isinstance(error, (SketchscaleError, FileExistsError)) or type(error).__name__ in (
        "AlreadyExistsError",
        "PreconditionError",
    )


def status_of(error: Exception) -> int:
    """Return the HTTP status in an error of a store; 0 without an answer."""
    found = re.search(r"status code: (\d{3})|status (\d{3}) ", str(error))
    return int(found[1] or found[2]) if found else 0


def code_of(error: Exception) -> str:
    """Return the error code of the server, such as NoSuchBucket; empty without one."""
    found = re.search(
        r"<Code>(\w{1,60})</Code>|\b(ExpiredToken|InvalidAccessKeyId|SignatureDoesNotMatch)\b", str(error)
    )
    return (found[1] or found[2]) if found else ""


def _cause(error: Exception) -> str:
    status, code = status_of(error), code_of(error)
    if status:
        return f"status {status} {code}".strip()
    if isinstance(error, NotStoredError):
        return str(error)
    for words in ("error sending request", "connection closed", "error decoding response body", "end of file"):
        if words in str(error):
            return words
    return type(error).__name__


def refusal(key: str, error: Exception, *, writing: bool) -> SketchscaleError | None:
    """Return the typed error for a failure that will not pass; None if it may."""
    status, code = status_of(error), code_of(error)
    kind = OutputError if writing else InputError
    if re.search(r"https?://(169\.254\.169\.254|metadata\.google\.internal|metadata)/", str(error)):
        return SetupError(
            f"{key}: no credentials were found; expected: those of the environment, a profile or this machine's role; "
            f"to fix: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or AWS_SKIP_SIGNATURE=true if public"
        )
    if code in _NO_BUCKET:
        bucket = "/".join(key.split("/")[:3])
        return MissingDataError(f"{key}: there is no such bucket ({bucket}); to fix: correct its name, or make it")
    if code in ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"):
        return kind(f"{key}: the credentials are expired ({code}); to fix: renew them, then run again with --resume")
    if status in (401, 403) or type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError"):
        verb = "write" if writing else "read"
        answer = f"{status or 403} {code}".strip()
        return kind(
            f"{key}: no permission to {verb} it ({answer}); expected: credentials that may; "
            f"to fix: other credentials or rights on the bucket, then run again with --resume"
        )
    if status in (301, 307, 400) and code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "TemporaryRedirect"):
        return kind(f"{key}: the bucket is in another region ({code}); to fix: set AWS_REGION to the bucket's")
    if status == 501 or type(error).__name__ == "NotSupportedError":
        return kind(
            f"{key}: the store cannot do this ({status or 501} {code or 'NotImplemented'}); to fix: another store"
        )
    if 400 <= status < 500 and status not in (404, 408, 409, 412, 416, 425, 429):
        hint = "" if code else ", as for expired credentials or a wrong region"
        return kind(f"{key}: the store refuses the request (status {status} {code}{hint}); to fix: see its settings")
    return None
