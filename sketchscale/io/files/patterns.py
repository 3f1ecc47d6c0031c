"""Glob patterns, which stand for what matches them, wherever names can be listed."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from sketchscale.errors import MissingDataError
from sketchscale.io.ome_zarr.groups import read_attributes
from sketchscale.io.stores.addresses import address_parts, is_local, join_address, split_address
from sketchscale.io.stores.output_files import list_names

__all__ = ["is_pattern", "matches"]


def matches(address: str) -> list[str]:
    """An address itself, or what a glob pattern matches, sorted by name; in a bucket, too.

    Args:
        address: `*`, `?` and `[...]` match within one part of it, as in `s3://plates/2026-*/*.zarr`.

    Raises:
        MissingDataError: nothing matches.

    >>> matches("s3://bucket/a.zarr")
    ['s3://bucket/a.zarr']
    """
    if not is_pattern(address) or _is_there(address):
        return [address]
    names = sorted(glob.glob(address)) if is_local(address) else sorted(_in_store(address))
    if not names:
        raise MissingDataError(f"{address} matches nothing; expected: files or images; to fix: check the pattern")
    return names


def is_pattern(text: str) -> bool:
    """Whether a text may stand for several names."""
    return any(c in text for c in "*?[")


def _is_there(address: str) -> bool:
    return Path(address).exists() if is_local(address) else read_attributes(*split_address(address)) is not None


def _in_store(address: str) -> Iterable[str]:
    """Part by part, so that only folders which match are listed; a chain has no bucket before its first part."""
    head, path, tail = address_parts(address.rstrip("/"))
    parts = path.split("/")
    found = [f"{head}{tail}"] if tail else [f"{head}{parts.pop(0)}"]
    for part in parts:
        if not is_pattern(part):
            found = [join_address(folder, part) for folder in found]
            continue
        found = [join_address(f, name) for f in found for name in list_names(f) if fnmatchcase(name, part)]
    return found
