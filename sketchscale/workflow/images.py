"""Resolve the addresses given to a command: an image is itself, a plate is its fields, a collection its series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from sketchscale.config import Execution
from sketchscale.errors import InputError, MissingDataError, UnknownNameError
from sketchscale.intensity import channel_ranges
from sketchscale.io.files.patterns import matches
from sketchscale.io.ome_zarr.planes import PixelsRef
from sketchscale.io.ome_zarr.plate import image_addresses
from sketchscale.workflow.runner import Runner

__all__ = ["display_ranges", "expand", "map_measured", "matches", "short_name"]


_T = TypeVar("_T")


def expand(addresses: Sequence[str]) -> list[str]:
    """Return addresses of single images, in order and without repetition.

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


def map_measured(addresses: Sequence[str], work: Callable[[str], _T]) -> list[_T | None]:
    """Return the result of `work` for each image; None for images that were not segmented or measured.

    Raises:
        MissingDataError, UnknownNameError: that of the last image, where none was measured.
    """
    found: list[_T | None] = []
    for address in addresses:
        try:
            found.append(work(address))
        except (MissingDataError, UnknownNameError):
            if address == addresses[-1] and not any(found):
                raise
            found.append(None)
    return found


def display_ranges(pixels: PixelsRef, block: Sequence[int] = (2048, 2048)) -> tuple[tuple[float, float], ...]:
    """Return the intensities (low, high) of each channel that pictures show as black and white: percentiles."""
    with Runner(Execution()) as runner:
        return channel_ranges(runner.run, pixels, block, low=0.5, high=99.8)


def short_name(address: str) -> str:
    """Return the last part of an address; row, column and field for an image of a plate.

    >>> short_name("s3://bucket/a.zarr/"), short_name("p.zarr/B/3/0")
    ('a.zarr', 'B/3/0')
    """
    parts = address.rstrip("/").split("/")
    return "/".join(parts[-3:]) if parts[-1].isdigit() else parts[-1]
