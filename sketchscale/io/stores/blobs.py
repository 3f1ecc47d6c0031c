"""Read and write small objects in any store: records, commit markers, partial results, metadata documents.

A blob is written completely or not at all. A local file is written under a temporary name, synced and renamed, and then
its folder is synced, so that it survives a power cut. In object storage one PUT is atomic. Commits use
`put_blob_if_absent`: exactly one of several concurrent writers gets True.

Keys are relative, separated by `/`, and checked: no key leaves its store. Functions that write raise an OutputError if
the store cannot be written.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import threading
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import IO, TypeVar

from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from sketchscale.errors import InputError, MissingDataError, OutputError, SketchscaleError
from sketchscale.io.stores.addresses import (
    folder_of,
    is_local,
    is_object_store,
    local_path,
    open_store,
    writable_store,
)
from sketchscale.io.stores.local_files import is_dead_writers, locked, sync_folder, synced_temporary, temporary_file

__all__ = [
    "blob_stats",
    "blob_tag",
    "change_blob",
    "check_key",
    "delete_blob",
    "delete_blobs",
    "get_blob",
    "has_blobs",
    "list_blobs",
    "put_blob",
    "put_blob_if_absent",
    "sweep_dead",
    "sweep_partials",
    "writing",
    "writing_blob",
]

_KEY_LIMIT = 1024
_ESCAPES = re.compile(r"%(2e|2f|5c|00)|[\x00-\x1f\\]|^[A-Za-z]:", re.IGNORECASE)
_CHANGES = 200
_MEMORY_TURN = threading.Lock()
"""Orders the writers of a memory store, which belongs to one process."""

T = TypeVar("T")


def check_key(key: object, *, what: str = "key") -> str:
    """Return the key if it names something inside its store.

    Args:
        key: as found in metadata, so of any type.
        what: its name in the error.

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


@contextlib.contextmanager
def writing(place: str) -> Iterator[None]:
    """Turn errors of the system or of object storage in the block into an OutputError that names the place."""
    try:
        yield
    except SketchscaleError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith("obstore"):
            raise
        cause = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
        raise OutputError(
            f"cannot write {place}: {cause}; expected: a writable place with free space; "
            f"to fix: free space or choose another --out, then run again with --resume"
        ) from error


def put_blob(store: str, key: str, data: bytes) -> None:
    """Write or replace one object atomically; local files are synced to disk.

    Args:
        store: address of the store; a missing folder is created.
        key: relative to the store.
        data: may be empty.

    >>> put_blob("memory://doc-blobs", "a/b", b"1")
    >>> get_blob("memory://doc-blobs", "a/b")
    b'1'
    """
    check_key(key)
    with writing(f"{store}/{key}"):
        folder = folder_of(store)
        if folder is None:
            sync(writable_store(store).set(key, default_buffer_prototype().buffer.from_bytes(data)))
        else:
            with synced_temporary(folder / key, data) as temporary:
                temporary.replace(folder / key)


def put_blob_if_absent(store: str, key: str, data: bytes) -> bool:
    """Write one object unless it exists. Exactly one of several concurrent writers gets True.

    >>> [put_blob_if_absent("memory://doc-absent", "commit", data) for data in (b"1", b"2")]
    [True, False]
    """
    check_key(key)
    with writing(f"{store}/{key}"):
        folder = folder_of(store)
        if folder is not None:
            try:
                with synced_temporary(folder / key, data) as temporary:
                    os.link(temporary, folder / key)  # unlike a rename, fails if the name is taken
            except FileExistsError:
                return False
            return True
        opened = writable_store(store)
        if is_object_store(opened):
            created: bool = sync(opened.create(key, data))
            return created
        with _MEMORY_TURN:
            if sync(opened.exists(key)):
                return False
            sync(opened.set(key, default_buffer_prototype().buffer.from_bytes(data)))
            return True


def change_blob(store: str, key: str, change: Callable[[bytes | None], bytes]) -> None:
    """Replace one object by the result of `change`; concurrent changes are never lost.

    Args:
        change: takes the current bytes, or None if there are none. It is called again when another writer was faster,
            in object storage perhaps on its own result, so it must be idempotent.

    >>> for name in (b"a", b"b"):
    ...     change_blob("memory://doc-change", "list", lambda old: b" ".join(sorted({*(old or b"").split(), name})))
    >>> get_blob("memory://doc-change", "list")
    b'a b'
    """
    check_key(key)
    with writing(f"{store}/{key}"):
        folder = folder_of(store)
        opened = writable_store(store) if folder is None else None
        if opened is None or not is_object_store(opened):
            with _MEMORY_TURN if folder is None else locked(folder / key):
                put_blob(store, key, change(get_blob(store, key)))
            return
        for _ in range(_CHANGES):  # compare and swap: each failed round was won by another writer
            found = sync(opened.fetch(key))
            new = change(None if found is None else found.data)
            if sync(opened.create(key, new) if found is None else opened.replace(key, new, found)):
                return
            time.sleep(random.uniform(0, 0.2))
    raise OutputError(f"{store}/{key}: changed by others {_CHANGES} times meanwhile; to fix: run again with --resume")


@contextlib.contextmanager
def writing_blob(store: str, key: str) -> Iterator[IO[bytes]]:
    """Give a file to stream one object into. The object appears when the block ends, and not at all if it raises.

    In object storage and in memory the data is buffered in memory until then; in a folder it is not.
    """
    check_key(key)
    with writing(f"{store}/{key}"):
        folder = folder_of(store)
        if folder is None:
            buffer = io.BytesIO()
            yield buffer
            put_blob(store, key, buffer.getvalue())
            return
        with temporary_file(folder / key) as temporary:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(folder / key)
            sync_folder((folder / key).parent)


def get_blob(store: str, key: str) -> bytes | None:
    """Return the bytes of one object, or None if it does not exist.

    Raises:
        InputError: the store is damaged (such as a broken zip file) or the object cannot be read.
    """
    check_key(key)
    folder = folder_of(store)
    opened = _opened(store) if folder is None else None
    try:
        if folder is not None:
            return (folder / key).read_bytes() if (folder / key).is_file() else None
        buffer = None if opened is None else sync(opened.get(key, default_buffer_prototype()))
    except SketchscaleError:
        raise
    except Exception as error:  # each kind of store raises its own types; all mean the same here
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{store}/{key} cannot be read ({cause}); expected: a readable object; to fix: restore it"
        ) from error
    return None if buffer is None else buffer.to_bytes()


def blob_tag(store: str, key: str) -> str | None:
    """Return what changes when an object is written: tag and size in object storage, else ""; None if it is absent.

    >>> blob_tag("memory://doc-blobs", "nothing") is None
    True
    """
    opened = _opened(store)
    if opened is None:
        return None
    if not is_object_store(opened):
        return "" if sync(opened.exists(check_key(key))) else None
    found = sync(opened.head(check_key(key))) or sync(opened.head(key))
    return None if found is None else f"{found[0]} {found[1]}"


def list_blobs(store: str, prefix: str) -> list[str]:
    """Return the sorted keys below a prefix (a folder without slash; "" is the whole store), without temporary files.

    >>> put_blob("memory://doc-list", "a/2", b""); put_blob("memory://doc-list", "a/1", b"")
    >>> list_blobs("memory://doc-list", "a")
    ['a/1', 'a/2']
    """
    return sorted(blob for blob in _all_keys(store, prefix) if not blob.endswith(".partial"))


def has_blobs(store: str) -> bool:
    """Return whether a store holds anything; False for a web server, which has no listing.

    >>> has_blobs("memory://doc-nothing")
    False
    """
    if store.startswith(("http://", "https://")):
        return False
    if folder_of(store) is not None:
        return next(_all_keys(store, ""), None) is not None
    opened = _opened(store)
    return opened is not None and bool(sync(_collect(opened.list_prefix(""), most=1)))


def _all_keys(store: str, prefix: str) -> Iterator[str]:
    folder = folder_of(store)
    if folder is not None:
        for base, _, names in os.walk(folder / prefix if prefix else folder):
            relative = Path(base).relative_to(folder).as_posix()
            yield from (name if relative == "." else f"{relative}/{name}" for name in names)
        return
    opened = _opened(store)
    if opened is not None:
        yield from sync(_collect(opened.list_prefix(f"{prefix}/" if prefix else "")))


def _opened(store: str) -> Store | None:
    """Open a store to read; None for a memory store without data. Other missing stores show when they are read."""
    try:
        return open_store(store)
    except MissingDataError:
        return None


async def _collect(items: AsyncIterator[T], *, most: int | None = None) -> list[T]:
    found: list[T] = []
    async for item in items:
        found.append(item)
        if len(found) == most:
            break
    return found


def blob_stats(store: str, prefix: str) -> list[tuple[str, int, str]]:
    """Return the sorted (key, size in bytes, time or tag of the last change) of every object below a prefix.

    This identifies an input at low cost: no pixel is read, and any rewritten object changes it. The third entry is a
    checksum in a zip file and empty in memory, where there are no times or tags.
    """
    folder = folder_of(store)
    if folder is not None:
        stats = ((key, (folder / key).stat()) for key in list_blobs(store, prefix))
        return [(key, stat.st_size, str(stat.st_mtime_ns)) for key, stat in stats]
    if is_local(store):
        with zipfile.ZipFile(local_path(store)) as archive:
            return sorted(
                (entry.filename, entry.file_size, f"{entry.CRC:08x}")
                for entry in archive.infolist()
                if not prefix or entry.filename.startswith(f"{prefix}/")
            )
    opened = open_store(store)
    if not is_object_store(opened):
        return [(key, sync(opened.getsize(key)), "") for key in list_blobs(store, prefix)]
    return sorted(entry for entry in sync(_collect(opened.entries(prefix))) if not entry[0].endswith(".partial"))


def delete_blob(store: str, key: str) -> None:
    """Remove one object if it exists, and its local folder if that is then empty."""
    check_key(key)
    with writing(f"{store}/{key}"):
        folder = folder_of(store)
        if folder is not None:
            (folder / key).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                (folder / key).parent.rmdir()
        else:
            sync(writable_store(store).delete(key))


def delete_blobs(store: str, prefix: str) -> None:
    """Remove every object below a prefix, and its local folders."""
    check_key(prefix)
    with writing(f"{store}/{prefix}"):
        folder = folder_of(store)
        if folder is None:
            sync(writable_store(store).delete_dir(prefix))
            return
        for base, _, names in os.walk(folder / prefix, topdown=False):
            for name in names:
                Path(base, name).unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(base)


def sweep_dead(store: str, group: str) -> int:
    """Remove temporary files of dead processes of this machine from a folder that runs share; return how many.

    Such folders hold documents that several runs replace (the list of labels), so files of living writers must stay.
    """
    folder = folder_of(store)
    if folder is None or not (folder / group).is_dir():
        return 0
    return _remove_strays(store, group, [path for path in (folder / group).iterdir() if is_dead_writers(path)])


def sweep_partials(store: str, prefix: str = "") -> int:
    """Remove the temporary files that killed writers left below a prefix; return how many.

    No other run may be writing below the prefix, because files of living writers are removed as well.
    """
    folder = folder_of(store)
    if folder is None:
        return 0
    return _remove_strays(store, prefix, [folder / key for key in _all_keys(store, prefix) if key.endswith(".partial")])


def _remove_strays(store: str, prefix: str, strays: list[Path]) -> int:
    with writing(f"{store}/{prefix or '.'}"):
        for stray in strays:
            stray.unlink(missing_ok=True)
    return len(strays)
