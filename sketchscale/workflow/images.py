"""Which images a command means: an image is itself, a plate is its fields, a collection its series."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from sketchscale.errors import InputError, MissingDataError
from sketchscale.io.groups import read_attributes
from sketchscale.io.plate import image_addresses
from sketchscale.io.store import is_local, split_address
from sketchscale.io.user_files import list_names

__all__ = ["expand", "matches"]


def expand(addresses: Sequence[str]) -> list[str]:
    """Addresses of single images, in order, each once.

    Args:
        addresses: images, plates, or glob patterns.

    Raises:
        MissingDataError: a pattern that matches nothing.
        InputError: no address at all.
    """
    found: list[str] = []
    for address in addresses:
        for one in matches(address):
            found += image_addresses(one)
    if not found:
        raise InputError("no image was named; expected: at least one OME-Zarr image or plate")
    return list(dict.fromkeys(found))


def matches(address: str) -> list[str]:
    """An address itself, or what a glob pattern matches, sorted by name; in a bucket, too.

    Args:
        address: `*`, `?` and `[...]` match within one part of it, as in `s3://plates/2026-*/*.zarr`.

    Raises:
        MissingDataError: nothing matches.

    >>> matches("s3://bucket/a.zarr")
    ['s3://bucket/a.zarr']
    """
    if not _is_pattern(address) or _is_there(address):
        return [address]
    names = sorted(glob.glob(address)) if is_local(address) else sorted(_in_store(address))
    if not names:
        raise MissingDataError(f"{address} matches nothing; expected: files or images; to fix: check the pattern")
    return names


def _is_pattern(text: str) -> bool:
    return any(c in text for c in "*?[")


def _is_there(address: str) -> bool:
    return Path(address).exists() if is_local(address) else read_attributes(*split_address(address)) is not None


def _in_store(address: str) -> Iterable[str]:
    """Part by part, so that only folders which match are listed."""
    scheme, _, rest = address.rstrip("/").partition("://")
    bucket, *parts = rest.split("/")
    found = [f"{scheme}://{bucket}"]
    for part in parts:
        if not _is_pattern(part):
            found = [f"{folder}/{part}" for folder in found]
            continue
        found = [f"{folder}/{name}" for folder in found for name in list_names(folder) if fnmatchcase(name, part)]
    return found
