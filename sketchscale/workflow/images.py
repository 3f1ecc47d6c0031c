"""Which images a command means: an image is itself, a plate is its fields, a collection its series."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from sketchscale.errors import InputError, MissingDataError
from sketchscale.io.plate import image_addresses
from sketchscale.io.store import is_local

__all__ = ["expand", "local_matches"]


def expand(addresses: Sequence[str]) -> list[str]:
    """Addresses of single images, in order, each once.

    Args:
        addresses: images, plates, or glob patterns of local ones.

    Raises:
        MissingDataError: a pattern that matches nothing.
        InputError: no address at all.
    """
    found: list[str] = []
    for address in addresses:
        for one in local_matches(address):
            found += image_addresses(one)
    if not found:
        raise InputError("no image was named; expected: at least one OME-Zarr image or plate")
    return list(dict.fromkeys(found))


def local_matches(address: str) -> list[str]:
    """An address itself, or what a glob pattern of local ones matches, sorted by name.

    Raises:
        MissingDataError: nothing matches.

    >>> local_matches("s3://bucket/a.zarr")
    ['s3://bucket/a.zarr']
    """
    if not is_local(address) or not any(c in address for c in "*?[") or Path(address).exists():
        return [address]
    names = sorted(glob.glob(address))
    if not names:
        raise MissingDataError(f"{address} matches nothing; expected: files or images; to fix: check the pattern")
    return names
