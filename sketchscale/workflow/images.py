"""Which images a command means: an image is itself, a plate is its fields, a collection its series."""

from __future__ import annotations

from collections.abc import Sequence

from sketchscale.errors import InputError
from sketchscale.io.patterns import matches
from sketchscale.io.plate import image_addresses

__all__ = ["expand", "matches", "short_name"]


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


def short_name(address: str) -> str:
    """The last part of an address; row, column and field for an image of a plate.

    >>> short_name("s3://bucket/a.zarr/"), short_name("p.zarr/B/3/0")
    ('a.zarr', 'B/3/0')
    """
    parts = address.rstrip("/").split("/")
    return "/".join(parts[-3:]) if parts[-1].isdigit() else parts[-1]
