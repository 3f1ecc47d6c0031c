"""Turn addresses into stores, by one table, so that nothing above `io` depends on where bytes are stored.

    plate.ome.zarr, /data/x.zarr      a folder           LocalStore (writes to a temporary name, then renames)
    x.zarr.zip, x.zip                 a zip file         ZipStore, read only
    memory://name                     this process       MemoryStore, for tests and for arrays without files
    s3:// gs:// az://                 object storage     PatientStore (obstore)
    http:// https://                  a web server       PatientStore (obstore), read only
    fsspec+s3:// fsspec+gs:// ...     the same by fsspec FallbackStore, read only
    ftp:// github:// hf:// zip:// ... other schemes of fsspec, also chained (`zip://a.zarr::ftp://host/a.zip`): as above

`memory://` also reads from fsspec's own memory if we have no store of that name.

`file://` is refused for a folder path because the fsspec store for it is not atomic: a killed write leaves half a
chunk.
"""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore, ZipStore

from sketchscale.errors import InputError, MissingDataError, OutputError, UnknownNameError

if TYPE_CHECKING:
    from sketchscale.io.stores.object_store import PatientStore

__all__ = [
    "STORES",
    "absolute_address",
    "address_parts",
    "folder_of",
    "is_local",
    "is_object_store",
    "join_address",
    "local_path",
    "memory_store",
    "open_store",
    "split_address",
    "writable_store",
]

_MEMORY: dict[str, MemoryStore] = {}


def _open_folder(address: str, read_only: bool) -> Store:
    path = Path(address)
    if path.is_file():
        if path.suffix == ".zip":
            try:
                return sync(ZipStore.open(path, mode="r"))
            except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
                raise InputError(f"{path} is not a readable zip file ({error}); expected: a zipped OME-Zarr") from error
        raise InputError.of(found=f"{address} is a file", expected="an OME-Zarr folder", fix="sketchscale convert it")
    if read_only and not path.is_dir():
        raise MissingDataError(f"{address} does not exist; expected: an OME-Zarr folder; to fix: check the path")
    return LocalStore(path, read_only=read_only)


def _open_memory(address: str, read_only: bool) -> Store:
    name = address.removeprefix("memory://")
    if name not in _MEMORY:
        fsspec = sys.modules.get("fsspec.implementations.memory")  # loaded only if this process wrote to it
        if fsspec is not None and name and fsspec.MemoryFileSystem().exists(f"/{name}"):
            return _open_fsspec(address, read_only)
        if read_only:
            raise MissingDataError(f"{address} does not exist in this process")
    return _MEMORY.setdefault(name, MemoryStore())


def _open_object(address: str, read_only: bool) -> Store:
    from sketchscale.io.stores.object_store import PatientStore  # keeps local work free of its import time

    return PatientStore(address, read_only=read_only)


def _open_web(address: str, read_only: bool) -> Store:
    if not read_only:
        raise OutputError(f"{address} is read only; expected: storage that can be written; to fix: copy it first")
    return _open_object(address, read_only)


def _open_fsspec(address: str, read_only: bool) -> Store:
    if not read_only:
        raise OutputError(
            f"{address} is read only: fsspec is used only to read; expected: a folder, s3://, gs:// or az://; "
            f"to fix: write there"
        )
    from sketchscale.io.stores.fsspec_store import open_fallback  # keeps local work free of its import time

    return open_fallback(address)


STORES: dict[str, Callable[[str, bool], Store]] = {
    "": _open_folder,
    "memory": _open_memory,
    "s3": _open_object,
    "gs": _open_object,
    "az": _open_object,
    "fsspec+s3": _open_fsspec,
    "fsspec+gs": _open_fsspec,
    "fsspec+az": _open_fsspec,
    "http": _open_web,
    "https": _open_web,
}
"""Scheme to opener. A new storage backend needs an opener and a line here."""


def open_store(address: str | Path, *, read_only: bool = True) -> Store:
    """Open the store behind an address.

    Raises:
        MissingDataError: a folder opened for reading does not exist.
        UnknownNameError: neither STORES nor fsspec has this scheme.
    """
    text = str(address)
    scheme = text.partition("://")[0] if "://" in text else ""
    opener = STORES.get(scheme)
    if opener is None:
        from fsspec.registry import known_implementations, registry  # keeps local work free of its import time

        names = scheme.removeprefix("fsspec+").split("::")  # all of a chain such as simplecache::ftp
        if names[0] in ("file", "local") or not all(n in known_implementations or n in registry for n in names):
            known = [s for s in STORES if s]
            raise UnknownNameError.among("address scheme (neither ours nor fsspec's)", scheme, known)
        opener = _open_fsspec
    return opener(text, read_only)


def writable_store(address: str) -> Store:
    """Open the store behind an address to write to it.

    Raises:
        OutputError: it is read only.
    """
    opened = open_store(address, read_only=False)
    if opened.read_only:
        raise OutputError(f"{address} is read only; expected: a store that can be written; to fix: copy it to a folder")
    return opened


@contextlib.contextmanager
def memory_store() -> Iterator[str]:
    """Give the address of a new store in memory; it and its scratch are deleted at the end.

    >>> with memory_store() as address:
    ...     opened = open_store(address, read_only=False)
    >>> address.removeprefix("memory://") in _MEMORY
    False
    """
    name = f"temporary-{uuid.uuid4().hex}"
    try:
        yield f"memory://{name}"
    finally:
        for found in [found for found in _MEMORY if found.startswith(name)]:
            sync(_MEMORY.pop(found).clear())  # open arrays are cached, and hold their store


def is_object_store(store: Store) -> TypeGuard[PatientStore]:
    """Return whether a store is object storage, without importing its client."""
    return hasattr(store, "strict")


def is_local(address: str | Path) -> bool:
    """Return whether an address names a folder or file of this machine."""
    return "://" not in str(address)


def folder_of(store: str) -> Path | None:
    """Return the folder behind a store; None if it is something else (object storage, memory, zip)."""
    path = Path(store)
    return path if is_local(store) and not path.is_file() else None


def absolute_address(address: str) -> str:
    """Return an address that is valid from any working directory; only local paths change.

    >>> absolute_address("/data/../image.zarr"), absolute_address("s3://bucket/image.zarr")
    ('/image.zarr', 's3://bucket/image.zarr')
    """
    return os.path.abspath(address) if is_local(address) else address.rstrip("/")


def local_path(address: str | Path) -> Path:
    """Return the path of a local address.

    Raises:
        InputError: the address is not local.
    """
    if not is_local(address):
        raise InputError.of(found=f"{address}", expected="a local path", fix="copy it to this machine first")
    return Path(address)


def split_address(address: str | Path) -> tuple[str, str]:
    """Split an address into its store and the group inside that store.

    Folders inside a folder and prefixes in object storage are stores themselves, so their group is empty. Only a zip
    file or a memory store is a single store, and the rest of the address is the group.
    >>> split_address("plate.zarr/B/3/0")
    ('plate.zarr/B/3/0', '')
    """
    text = str(address).rstrip("/")
    if text.startswith("memory://"):
        name = text.removeprefix("memory://")
        store = max((n for n in _MEMORY if name == n or name.startswith(f"{n}/")), key=len, default=name)
        return f"memory://{store}", name[len(store) :].strip("/")
    if not is_local(text):
        return text, ""
    path = Path(text)
    for parent in (path, *path.parents):
        if parent.suffix == ".zip" and parent.is_file():
            return str(parent), path.relative_to(parent).as_posix().removeprefix(".")
    return text, ""


def join_address(address: str | Path, path: str) -> str:
    """Return the address of a path inside an address; the inverse of `split_address`.

    >>> join_address("s3://bucket/a.zarr", "labels"), join_address("zip://a.zarr::ftp://host/a.zip", "labels")
    ('s3://bucket/a.zarr/labels', 'zip://a.zarr/labels::ftp://host/a.zip')
    """
    head, inside, tail = address_parts(address)
    if not path:
        return str(address)
    return f"{head}{inside.rstrip('/')}/{path}{tail}" if inside or not tail else f"{head}{path}{tail}"


def address_parts(address: str | Path) -> tuple[str, str, str]:
    """Return what precedes the path of an address, the path, and the rest of an fsspec chain.

    >>> address_parts("s3://bucket/a.zarr"), address_parts("zip://a.zarr::ftp://host/a.zip")
    (('s3://', 'bucket/a.zarr', ''), ('zip://', 'a.zarr', '::ftp://host/a.zip'))
    """
    scheme, separator, rest = str(address).partition("://")
    if not separator:
        return "", scheme, ""
    path, chain, outer = rest.partition("::")
    return (f"{scheme}://", path, f"{chain}{outer}") if "://" in outer else (f"{scheme}://", rest, "")
