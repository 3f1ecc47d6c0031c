"""Addresses to stores: one table, so that nothing above `io` knows where bytes live.

    plate.ome.zarr, /data/x.zarr      a folder           LocalStore (writes to a temporary name, then renames)
    x.zarr.zip, x.zip                 a zip file         ZipStore, read only
    memory://name                     this process       MemoryStore, for tests and for arrays without files
    s3:// gs:// az://                 object storage     PatientStore (obstore)
    http:// https://                  a web server       PatientStore (obstore), read only
    fsspec+s3:// fsspec+gs:// ...     the same by fsspec FallbackStore, read only
    ftp:// github:// hf:// zip:// ... what else fsspec knows, chains (`zip://a.zarr::ftp://host/a.zip`) too: as above

`memory://` is also read from fsspec's own memory, where nothing of ours has that name.

`file://` is refused for a folder path, because the fsspec store for it is not atomic (a killed write leaves half a
chunk).
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
    "is_local",
    "is_object_store",
    "is_storage_error",
    "join_address",
    "local_path",
    "memory_store",
    "open_store",
    "split_address",
]

_MEMORY: dict[str, MemoryStore] = {}


def _open_folder(address: str, read_only: bool) -> Store:
    path = Path(address)
    if path.is_file():
        if path.suffix == ".zip":
            return _open_zip(path)
        raise InputError.of(found=f"{address} is a file", expected="an OME-Zarr folder", fix="sketchscale convert it")
    if read_only and not path.is_dir():
        raise MissingDataError(f"{address} does not exist; expected: an OME-Zarr folder; to fix: check the path")
    return LocalStore(path, read_only=read_only)


def _open_zip(path: Path) -> Store:
    try:
        return sync(ZipStore.open(path, mode="r"))
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise InputError(f"{path} is not a readable zip file ({error}); expected: a zipped OME-Zarr") from error


def _open_memory(address: str, read_only: bool) -> Store:
    name = address.removeprefix("memory://")
    if name not in _MEMORY and _in_fsspec_memory(name):
        return _open_fsspec(address, read_only)
    if read_only and name not in _MEMORY:
        raise MissingDataError(f"{address} does not exist in this process")
    return _MEMORY.setdefault(name, MemoryStore())


def _in_fsspec_memory(name: str) -> bool:
    """Whether fsspec's memory holds it; empty unless this process wrote to it."""
    module = sys.modules.get("fsspec.implementations.memory")
    return module is not None and bool(name) and bool(module.MemoryFileSystem().exists(f"/{name}"))


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
            f"{address} is read only: fsspec is used to read alone; expected: a folder, s3://, gs:// or az://; "
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
"""Scheme to opener. A new backend is an opener and a line here."""


def open_store(address: str | Path, *, read_only: bool = True) -> Store:
    """The store behind an address.

    Raises:
        MissingDataError: a folder opened for reading is not there.
        UnknownNameError: a scheme that is not in STORES, and that fsspec does not know either.
    """
    text = str(address)
    scheme = text.partition("://")[0] if "://" in text else ""
    opener = STORES.get(scheme) or (_open_fsspec if _fsspec_reads(scheme) else None)
    if opener is None:
        known = [s for s in STORES if s]
        raise UnknownNameError.among("address scheme (neither ours nor fsspec's)", scheme, known)
    return opener(text, read_only)


def _fsspec_reads(scheme: str) -> bool:
    """Whether fsspec knows a scheme, or all of a chain such as simplecache::ftp; files have paths, and no scheme."""
    from fsspec.registry import known_implementations, registry  # keeps local work free of its import time

    names = scheme.removeprefix("fsspec+").split("::")
    return names[0] not in ("file", "local") and all(n in known_implementations or n in registry for n in names)


@contextlib.contextmanager
def memory_store() -> Iterator[str]:
    """The address of a new store in memory, which is emptied and forgotten in the end, with its scratch.

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


def is_storage_error(error: BaseException) -> bool:
    """Whether a store failed, as opposed to what is in it: the errors of the system, and those of object storage."""
    return isinstance(error, OSError) or type(error).__module__.startswith("obstore")


def is_object_store(store: Store) -> TypeGuard[PatientStore]:
    """Whether a store is object storage, told without loading what speaks to it."""
    return hasattr(store, "strict")


def is_local(address: str | Path) -> bool:
    """Whether an address names a folder or file of this machine."""
    return "://" not in str(address)


def absolute_address(address: str) -> str:
    """A local path as workers call it, whatever folder they were started in; other addresses are so already.

    >>> absolute_address("/data/../image.zarr"), absolute_address("s3://bucket/image.zarr")
    ('/image.zarr', 's3://bucket/image.zarr')
    """
    return os.path.abspath(address) if is_local(address) else address.rstrip("/")


def local_path(address: str | Path) -> Path:
    """The path of a local address.

    Raises:
        InputError: the address is not local.
    """
    if not is_local(address):
        raise InputError.of(found=f"{address}", expected="a local path", fix="copy it to this machine first")
    return Path(address)


def split_address(address: str | Path) -> tuple[str, str]:
    """An address into its store and the group inside that store.

    A folder inside a folder, or a prefix in object storage, is a store of its own, so the group is empty; only a zip
    file and a memory store are one thing from outside, and what follows their name is the group.

    >>> split_address("plate.zarr/B/3/0")
    ('plate.zarr/B/3/0', '')
    """
    text = str(address).rstrip("/")
    if text.startswith("memory://"):
        return _split_memory(text)
    if not is_local(text):
        return text, ""
    path = Path(text)
    for parent in (path, *path.parents):
        if parent.suffix == ".zip" and parent.is_file():
            return str(parent), path.relative_to(parent).as_posix().removeprefix(".")
    return text, ""


def _split_memory(text: str) -> tuple[str, str]:
    name = text.removeprefix("memory://")
    known = [n for n in _MEMORY if name == n or name.startswith(f"{n}/")]
    store = max(known, key=len, default=name)
    return f"memory://{store}", name[len(store) :].strip("/")


def join_address(address: str | Path, path: str) -> str:
    """The address of something inside an address; the inverse of what `split_address` takes apart.

    >>> join_address("s3://bucket/a.zarr", "labels"), join_address("zip://a.zarr::ftp://host/a.zip", "labels")
    ('s3://bucket/a.zarr/labels', 'zip://a.zarr/labels::ftp://host/a.zip')
    """
    if not path:
        return str(address)
    head, inside, tail = address_parts(address)
    return f"{head}{inside.rstrip('/')}/{path}{tail}" if inside or not tail else f"{head}{path}{tail}"


def address_parts(address: str | Path) -> tuple[str, str, str]:
    """What stands before the path of an address, the path, and the rest of a chain of fsspec's.

    >>> address_parts("s3://bucket/a.zarr"), address_parts("zip://a.zarr::ftp://host/a.zip")
    (('s3://', 'bucket/a.zarr', ''), ('zip://', 'a.zarr', '::ftp://host/a.zip'))
    """
    scheme, separator, rest = str(address).partition("://")
    if not separator:
        return "", scheme, ""
    path, chain, outer = rest.partition("::")
    return (f"{scheme}://", path, f"{chain}{outer}") if "://" in outer else (f"{scheme}://", rest, "")
