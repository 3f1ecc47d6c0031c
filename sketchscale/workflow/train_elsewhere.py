"""The options of a training as they are where it runs: on the machines of a cluster."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from sketchscale.config import TrainOptions
from sketchscale.errors import MissingDataError
from sketchscale.io.store import is_local

__all__ = ["absolute", "read_sketches", "with_sketches"]


def read_sketches(options: TrainOptions) -> dict[str, bytes]:
    """Sketches travel with the work: they are small, and lie on the machine of the person who drew them."""
    try:
        return {path: Path(path).read_bytes() for path in (*options.sketches, *options.validate_sketches)}
    except OSError as error:
        raise MissingDataError(
            f"sketch {error.filename} cannot be read: {error.strerror}; expected: a .jsonl log; to fix: check the path"
        ) from error


def with_sketches(options: TrainOptions, sketches: dict[str, bytes], folder: Path) -> TrainOptions:
    """The worker's own files where they are the same, as strokes may be added to them; else what travelled here."""
    here = {}
    for number, (path, data) in enumerate(sketches.items()):
        here[path] = path
        if not Path(path).is_file() or not Path(path).read_bytes().startswith(data):
            here[path] = str(folder / f"{number}-{Path(path).name}")
            Path(here[path]).write_bytes(data)
    lists: dict[str, Any] = {
        name: tuple(here[path] for path in getattr(options, name)) for name in ("sketches", "validate_sketches")
    }
    return replace(options, **lists)


def absolute(options: TrainOptions) -> TrainOptions:
    """Local paths as they are called from any working folder."""

    def place(address: str) -> str:
        return os.path.abspath(address) if is_local(address) else address

    lists: dict[str, Any] = {name: tuple(map(place, getattr(options, name))) for name in _ADDRESSES}
    init = options.init if options.init is None or not os.path.exists(options.init) else place(options.init)
    return replace(options, out=place(options.out), init=init, **lists)


_ADDRESSES = ("images", "sketches", "validate", "validate_sketches", "synthetic")
