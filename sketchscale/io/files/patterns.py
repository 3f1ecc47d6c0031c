"""Expand glob patterns in folders and in object storage."""

from __future__ import annotations

import glob
from fnmatch import fnmatchcase
from pathlib import Path

from sketchscale.errors import MissingDataError
from sketchscale.io.ome_zarr.groups import read_attributes
from sketchscale.io.stores.addresses import address_parts, is_local, join_address, split_address
from sketchscale.io.stores.output_files import list_names

__all__ = ["is_pattern", "matches"]


def matches(address: str) -> list[str]:
    """Return the address itself, or the sorted matches of a glob pattern, also in a bucket.

    Args:
        address: `*`, `?` and `[...]` match within one part, as in `s3://plates/2026-*/*.zarr`.

    Raises:
        MissingDataError: nothing matches.

    >>> matches("s3://bucket/a.zarr")
    ['s3://bucket/a.zarr']
    """
    if not is_pattern(address):
        return [address]
    if is_local(address):
        names = [address] if Path(address).exists() else glob.glob(address)
    elif read_attributes(*split_address(address)) is not None:
        names = [address]
    else:  # part by part, so that only matching folders are listed; a chain has no bucket before its first part
        head, path, tail = address_parts(address.rstrip("/"))
        parts = path.split("/")
        names = [f"{head}{tail}"] if tail else [f"{head}{parts.pop(0)}"]
        for part in parts:
            if is_pattern(part):
                names = [join_address(f, name) for f in names for name in list_names(f) if fnmatchcase(name, part)]
            else:
                names = [join_address(folder, part) for folder in names]
    if not names:
        raise MissingDataError(f"{address} matches nothing; expected: files or images; to fix: check the pattern")
    return sorted(names)


def is_pattern(text: str) -> bool:
    """Return whether a text contains the characters of a glob pattern."""
    return any(c in text for c in "*?[")
