"""The options of a training as they are where it runs: on the machines of a cluster.

Images are read there by address. What a person drew or clicked travels with the work: it is small, and lies on the
machine of that person.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sketchscale.annotations.opening import sketch_files
from sketchscale.config import TrainOptions
from sketchscale.errors import MissingDataError
from sketchscale.io.store import absolute_address

__all__ = ["absolute", "place_files", "read_files", "read_sketches", "with_sketches"]


def read_files(paths: Iterable[str], kind: str, expected: str) -> dict[str, bytes]:
    """What is to travel, by path.

    Args:
        kind, expected: for words: what such a file is called, and what it is.

    Raises:
        MissingDataError: one cannot be read.
    """
    try:
        return {path: Path(path).read_bytes() for path in paths}
    except OSError as error:
        raise MissingDataError(
            f"{kind} {error.filename} cannot be read: {error.strerror}; expected: {expected}; to fix: check the path"
        ) from error


def place_files(files: dict[str, bytes], folder: Path, fits: Callable[[bytes, bytes], bool]) -> dict[str, str]:
    """Where each of the files is here: at its own path where there is one that fits, else in `folder`.

    Args:
        files: what `read_files` gave. folder: empty.
        fits: whether this machine's file may stand for the one that travelled: (here, travelled).
    """
    here = {}
    for number, (path, data) in enumerate(files.items()):
        here[path] = path
        if not Path(path).is_file() or not fits(Path(path).read_bytes(), data):
            here[path] = str(folder / f"{number}-{Path(path).name}")
            Path(here[path]).write_bytes(data)
    return here


# ---- of a model


def read_sketches(options: TrainOptions) -> dict[str, dict[str, bytes]]:
    """Read the sketches that travel with the work: for each its own file and those that are read with it, by path.

    Raises:
        MissingDataError: one cannot be read.
    """
    paths = (*options.sketches, *options.validate_sketches)
    expected = "a file with an annotation"
    return {path: read_files((path, *map(str, sketch_files(path)[1:])), "sketch", expected) for path in paths}


def with_sketches(options: TrainOptions, sketches: dict[str, dict[str, bytes]], folder: Path) -> TrainOptions:
    """The worker's own files where they begin the same, as strokes may be added to them; else what travelled here."""
    here = {path: _placed(path, files, folder / str(n)) for n, (path, files) in enumerate(sketches.items())}
    lists: dict[str, Any] = {
        name: tuple(here[path] for path in getattr(options, name)) for name in ("sketches", "validate_sketches")
    }
    return replace(options, **lists)


def _placed(path: str, files: dict[str, bytes], folder: Path) -> str:
    """Where a sketch is here; files that are read together stay together, under their own names."""
    if all(Path(name).is_file() and Path(name).read_bytes().startswith(data) for name, data in files.items()):
        return path
    folder.mkdir()
    for name, data in files.items():
        (folder / Path(name).name).write_bytes(data)
    return str(folder / Path(path).name)


def absolute(options: TrainOptions) -> TrainOptions:
    """Local paths as they are called from any working folder."""
    lists: dict[str, Any] = {name: tuple(map(absolute_address, getattr(options, name))) for name in _ADDRESSES}
    init = options.init if options.init is None or not os.path.exists(options.init) else absolute_address(options.init)
    return replace(options, out=absolute_address(options.out), init=init, **lists)


_ADDRESSES = ("images", "sketches", "validate", "validate_sketches", "synthetic")
