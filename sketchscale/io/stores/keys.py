"""Keys of blobs, and the places behind them: what reading and writing of blobs begins with."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from zarr.abc.store import Store

from sketchscale.errors import InputError, OutputError, SketchscaleError
from sketchscale.io.stores.addresses import is_local, is_storage_error, local_path, open_store

__all__ = ["check_key", "folder_of", "writable_store", "writing"]

_KEY_LIMIT = 1024
_ESCAPES = re.compile(r"%(2e|2f|5c|00)|[\x00-\x1f\\]|^[A-Za-z]:", re.IGNORECASE)


def check_key(key: object, *, what: str = "key") -> str:
    """The key itself, when it names something inside its store.

    Args:
        key: as found in metadata, hence of any type.
        what: how the error calls it.

    Raises:
        InputError: not text, empty, absolute, longer than 1024 characters, or with `.`, `..`, empty or escaped parts.

    >>> check_key("labels/cells/0")
    'labels/cells/0'
    """
    text = key if isinstance(key, str) else ""
    if not 0 < len(text) <= _KEY_LIMIT or _ESCAPES.search(text) or {"", ".", ".."} & set(text.split("/")):
        raise InputError.of(
            found=f"{what} {str(key)[:80]!r}",
            expected="a relative path inside the store, without '.' or '..'",
            fix="correct the metadata that names it",
        )
    return text


def folder_of(store: str) -> Path | None:
    """The folder behind a store; None when it is not a folder (object storage, memory, zip)."""
    if not is_local(store):
        return None
    path = local_path(store)
    return None if path.is_file() else path


def writable_store(store: str) -> Store:
    """The store behind an address, to write to.

    Raises:
        OutputError: it is read only.
    """
    opened = open_store(store, read_only=False)
    if opened.read_only:
        raise OutputError(f"{store} is read only; expected: a store that can be written; to fix: copy it to a folder")
    return opened


@contextlib.contextmanager
def writing(store: str, key: str) -> Iterator[None]:
    """What a store raises while the block writes becomes an OutputError with the key; typed errors stay as they are."""
    try:
        yield
    except SketchscaleError:
        raise
    except Exception as error:
        if not is_storage_error(error):
            raise
        cause = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
        raise OutputError(
            f"cannot write {store}/{key}: {cause}; expected: a writable place with free space; "
            f"to fix: free space or choose another --out, then run again with --resume"
        ) from error
