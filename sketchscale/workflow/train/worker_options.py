"""The options of a training as they are where it runs: on the machines of a cluster.

Images are read there by address. What a person drew or clicked travels with the work: it is small, and lies on the
machine of that person.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sketchscale.errors import MissingDataError
from sketchscale.io.stores.addresses import absolute_address

__all__ = ["Luggage", "Travel", "lone_file"]

Luggage = dict[str, dict[str, bytes]]
"""For each path, its own file and those that are read with it, by path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Travel:
    """What options name, and what of it travels.

    Attributes:
        addresses: options that hold addresses; local ones become absolute.
        names: those that hold an address or a name; they do where there is such a file.
        files: those that hold paths of files that travel.
        kind, expected: for words: what such a file is called, and what it is.
        beside: all files that one is read from, its own first.
        fits: whether a worker's file may stand for the one that travelled: (there, travelled).
    """

    addresses: tuple[str, ...]
    names: tuple[str, ...] = ()
    files: tuple[str, ...]
    kind: str
    expected: str
    beside: Callable[[str], Iterable[str | Path]]
    fits: Callable[[bytes, bytes], bool]

    def absolute(self, options: Any) -> Any:
        """Local paths as they are called from any working folder."""
        named = {name: getattr(options, name) for name in (*self.addresses, *self.names)}
        there = {k: v for k, v in named.items() if k not in self.names or (v is not None and os.path.exists(v))}
        return replace(options, **{k: _absolute(v) for k, v in there.items()})

    def pack(self, options: object) -> Luggage:
        """The files, read.

        Raises:
            MissingDataError: one cannot be read.
        """
        try:
            return {
                path: {str(file): Path(file).read_bytes() for file in self.beside(path)}
                for name in self.files
                for path in getattr(options, name)
            }
        except OSError as error:
            raise MissingDataError(
                f"{self.kind} {error.filename} cannot be read: {error.strerror}; expected: {self.expected}; "
                f"to fix: check the path"
            ) from error

    def unpack(self, options: Any, luggage: Luggage, folder: Path) -> Any:
        """With the worker's own files where all that are read together fit; else with what travelled.

        Args:
            folder: empty.
        """
        here = {path: self._placed(path, files, folder / str(n)) for n, (path, files) in enumerate(luggage.items())}
        return replace(options, **{name: tuple(here[p] for p in getattr(options, name)) for name in self.files})

    def _placed(self, path: str, files: dict[str, bytes], folder: Path) -> str:
        """Files that are read together stay together, under their own names."""
        if all(Path(name).is_file() and self.fits(Path(name).read_bytes(), data) for name, data in files.items()):
            return path
        folder.mkdir()
        for name, data in files.items():
            (folder / Path(name).name).write_bytes(data)
        return str(folder / Path(path).name)


def lone_file(path: str) -> tuple[str]:
    """See Travel: nothing is read with it."""
    return (path,)


def _absolute(value: Any) -> Any:
    """Of an address, or several.

    >>> _absolute(("/data/../image.zarr", "s3://bucket/image.zarr"))
    ('/image.zarr', 's3://bucket/image.zarr')
    """
    if isinstance(value, tuple):
        return tuple(map(_absolute, value))
    return absolute_address(value)
