"""The address of an S3-compatible server; apart from `buckets`, so that options are checked without loading it."""

from __future__ import annotations

import urllib.parse

from sketchscale.errors import InputError

__all__ = ["check_endpoint"]


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
