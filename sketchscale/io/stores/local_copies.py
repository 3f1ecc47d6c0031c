"""Local copies of remote files, for image libraries that can only read a path; one copy per process.

A copy is made when a file is opened, and again only if the file was written since. It is deleted when the process ends.
A conversion in several processes therefore downloads the file once in each of them.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import multiprocessing.util
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from zarr.abc.store import RangeByteRequest, Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from sketchscale.errors import InputError, MissingDataError, OutputError
from sketchscale.io.stores.addresses import is_local, is_object_store, open_store
from sketchscale.io.stores.blobs import blob_tag
from sketchscale.io.stores.output_files import split_file

__all__ = ["local_copy"]

_PART_BYTES = 2**26
_TURN = threading.Lock()
_COPIES: dict[str, tuple[str, Path]] = {}
"""Address to the stamp of the file that was copied, and its copy."""


@contextlib.contextmanager
def local_copy(address: str, *, look: bool = False) -> Iterator[str]:
    """Give a path on this machine to read; errors of the block name the address instead of the copy.

    Args:
        address: a local one is itself the path.
        look: check whether the file was written since the last copy.

    Raises:
        MissingDataError: the file does not exist.
        OutputError: there is no space for the copy.
    """
    if is_local(address):
        yield address
        return
    with _TURN:
        copy = str(_copy(address, look=look))
    try:
        yield copy
    except InputError as error:
        raise type(error)(str(error).replace(copy, address)) from error


def _copy(address: str, *, look: bool) -> Path:
    known = _COPIES.get(address)
    if known is not None and not look:
        return known[1]
    store, key = split_file(address)
    try:
        opened = open_store(store)
        stamp = _stamp(store, opened, key)
        if known is not None and known[0] == stamp:
            return known[1]
        size = sync(opened.getsize(key))
    except FileNotFoundError as error:
        raise MissingDataError(f"{address} does not exist; expected: an image file; to fix: check the path") from error
    path = _folder() / hashlib.sha256(address.encode()).hexdigest()[:16] / key
    _write(opened, key, size, path)
    _COPIES[address] = (stamp, path)
    return path


def _stamp(store: str, opened: Store, key: str) -> str:
    from sketchscale.io.stores.fsspec_store import FallbackStore  # loads fsspec, which few addresses need

    if isinstance(opened, FallbackStore):
        return sync(opened.stamp(key))
    tag = blob_tag(store, key)
    if tag is None:
        raise FileNotFoundError(key)
    return tag if is_object_store(opened) else f"{tag} {sync(opened.getsize(key))}"


def _write(opened: Store, key: str, size: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("wb") as file:
            for start in range(0, size, _PART_BYTES):
                part = RangeByteRequest(start, min(size, start + _PART_BYTES))
                data = sync(opened.get(key, default_buffer_prototype(), part))
                if data is None:
                    raise FileNotFoundError(key)
                file.write(data.to_bytes())
    except OSError as error:
        if isinstance(error, FileNotFoundError | InputError):
            raise
        raise OutputError(
            f"cannot copy {key} to {path.parent}: {error.strerror or error}; expected: {size} bytes free there; "
            f"to fix: free space, or name another folder in TMPDIR"
        ) from error


@functools.cache
def _folder() -> Path:
    """Return the folder of this process, which is removed at its end; `atexit` would not run in workers of a pool."""
    folder = tempfile.mkdtemp(prefix="sketchscale-")
    multiprocessing.util.Finalize(None, shutil.rmtree, args=(folder, True), exitpriority=0)
    return Path(folder)
