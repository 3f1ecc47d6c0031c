"""Adapt the options of a training to the machines of a cluster.

Workers read images by address. What a person drew or clicked is small and lies on that person's machine, so these files
are sent to the workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sketchscale.errors import MissingDataError
from sketchscale.io.stores.addresses import absolute_address

__all__ = ["PackedFiles", "WorkerOptions", "single_file"]

PackedFiles = dict[str, dict[str, bytes]]
"""For each path in the options, the contents of its file and of those that are read with it, by path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """Which options hold addresses and files, and which files are sent.

    Attributes:
        addresses: options that hold addresses; local ones become absolute.
        names: options that hold an address or a name; an existing file counts as an address.
        files: options that hold paths of files to send.
        kind, expected: for error messages: what such a file is called, and what it is.
        beside: returns all files that are read with one, its own first.
        fits: whether a worker's own file may replace the one that was sent: (there, sent).
    """

    addresses: tuple[str, ...]
    names: tuple[str, ...] = ()
    files: tuple[str, ...]
    kind: str
    expected: str
    beside: Callable[[str], Iterable[str | Path]]
    fits: Callable[[bytes, bytes], bool]

    def absolute(self, options: Any) -> Any:
        """Return the options with absolute local paths."""
        named = {name: getattr(options, name) for name in (*self.addresses, *self.names)}
        there = {k: v for k, v in named.items() if k not in self.names or (v is not None and os.path.exists(v))}
        return replace(options, **{k: _absolute(v) for k, v in there.items()})

    def pack(self, options: object) -> PackedFiles:
        """Read the files to send.

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

    def unpack(self, options: Any, packed: PackedFiles, folder: Path) -> Any:
        """Return the options with the worker's own files where all that are read together fit, else with those sent.

        Args:
            folder: an empty folder for the files that were sent.
        """
        here = {path: self._placed(path, files, folder / str(n)) for n, (path, files) in enumerate(packed.items())}
        return replace(options, **{name: tuple(here[p] for p in getattr(options, name)) for name in self.files})

    def _placed(self, path: str, files: dict[str, bytes], folder: Path) -> str:
        """Return the path of a file in this worker; files that are read together stay in one folder."""
        if all(Path(name).is_file() and self.fits(Path(name).read_bytes(), data) for name, data in files.items()):
            return path
        folder.mkdir()
        for name, data in files.items():
            (folder / Path(name).name).write_bytes(data)
        return str(folder / Path(path).name)


def single_file(path: str) -> tuple[str]:
    """Return only the file itself, for `WorkerOptions.beside`."""
    return (path,)


def _absolute(value: Any) -> Any:
    """Return an address, or a tuple of them, with local paths made absolute.

    >>> _absolute(("/data/../image.zarr", "s3://bucket/image.zarr"))
    ('/image.zarr', 's3://bucket/image.zarr')
    """
    if isinstance(value, tuple):
        return tuple(map(_absolute, value))
    return absolute_address(value)
