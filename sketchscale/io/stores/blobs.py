"""Small objects in any store: records, commit markers, partial results, metadata documents.

A blob is written whole or not at all: locally to a temporary name that is synced and renamed, and then its folder is
synced, so that it outlives a power cut; in object storage by one PUT, which is atomic there. `put_blob_if_absent` is
what commits are made of: of two writers exactly one hears True.

Keys are relative, `/`-separated, and checked: no key leaves its store.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from sketchscale.errors import InputError, MissingDataError, OutputError, SketchscaleError
from sketchscale.io.stores.addresses import is_local, is_object_store, local_path, open_store
from sketchscale.io.stores.keys import check_key, folder_of, writable_store, writing
from sketchscale.io.stores.local_files import is_dead_writers, locked, sync_folder, synced_temporary, temporary_file

if TYPE_CHECKING:
    from sketchscale.io.stores.object_store import PatientStore

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
    "writing_blob",
]


def put_blob(store: str, key: str, data: bytes) -> None:
    """Write or replace one object, atomically; local files are synced to disk.

    Args:
        store: address of the store; a folder is made when there is none.
        key: relative to the store.
        data: may be empty.

    Raises:
        OutputError: the store cannot be written.

    >>> put_blob("memory://doc-blobs", "a/b", b"1")
    >>> get_blob("memory://doc-blobs", "a/b")
    b'1'
    """
    check_key(key)
    with writing(store, key):
        folder = folder_of(store)
        if folder is None:
            sync(writable_store(store).set(key, default_buffer_prototype().buffer.from_bytes(data)))
        else:
            with synced_temporary(folder / key, data) as temporary:
                temporary.replace(folder / key)


def put_blob_if_absent(store: str, key: str, data: bytes) -> bool:
    """Write one object unless it is there; of several writers exactly one hears True.

    Returns:
        False when it was there; then nothing is written.

    Raises:
        OutputError: the store cannot be written.

    >>> [put_blob_if_absent("memory://doc-absent", "commit", data) for data in (b"1", b"2")]
    [True, False]
    """
    check_key(key)
    with writing(store, key):
        folder = folder_of(store)
        if folder is None:
            return _create_object(writable_store(store), key, data)
        try:
            with synced_temporary(folder / key, data) as temporary:
                os.link(temporary, folder / key)  # unlike a rename, fails when the name is taken
        except FileExistsError:
            return False
        return True


_MEMORY_TURN = threading.Lock()


def _create_object(store: Store, key: str, data: bytes) -> bool:
    if is_object_store(store):
        created: bool = sync(store.create(key, data))
        return created
    with _MEMORY_TURN:  # a memory store lives in one process
        if sync(store.exists(key)):
            return False
        sync(store.set(key, default_buffer_prototype().buffer.from_bytes(data)))
        return True


def change_blob(store: str, key: str, change: Callable[[bytes | None], bytes]) -> None:
    """Replace one object by what `change` makes of it; of changes made at the same time none is lost.

    Args:
        change: from the bytes that are there, None when there are none. Called again when somebody was faster, in
            object storage perhaps on its own result: twice has to be as good as once.

    Raises:
        OutputError: the store cannot be written.

    >>> for name in (b"a", b"b"):
    ...     change_blob("memory://doc-change", "list", lambda old: b" ".join(sorted({*(old or b"").split(), name})))
    >>> get_blob("memory://doc-change", "list")
    b'a b'
    """
    check_key(key)
    with writing(store, key):
        folder = folder_of(store)
        if folder is not None:
            with locked(folder / key):
                put_blob(store, key, change(get_blob(store, key)))
            return
        opened = writable_store(store)
        if is_object_store(opened):
            _change_object(opened, f"{store}/{key}", key, change)
            return
        with _MEMORY_TURN:
            put_blob(store, key, change(get_blob(store, key)))


_CHANGES = 200


def _change_object(store: PatientStore, name: str, key: str, change: Callable[[bytes | None], bytes]) -> None:
    """Compare and swap; every round that fails is one that another writer won."""
    for _ in range(_CHANGES):
        found = sync(store.fetch(key))
        new = change(None if found is None else found.data)
        done = store.create(key, new) if found is None else store.replace(key, new, found)
        if sync(done):
            return
        time.sleep(random.uniform(0, 0.2))
    raise OutputError(f"{name}: others changed it {_CHANGES} times meanwhile; to fix: run again with --resume")


@contextlib.contextmanager
def writing_blob(store: str, key: str) -> Iterator[IO[bytes]]:
    """A file to stream one object into; it appears, whole, when the block ends, and not at all when it raises.

    Object storage and memory hold it in memory until then; a folder does not.

    Raises:
        OutputError: the store cannot be written.
    """
    check_key(key)
    with writing(store, key):
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
    """The bytes of one object; None when it is not there.

    Raises:
        InputError: the store itself is damaged (a zip file that is none) or the object cannot be read.
    """
    check_key(key)
    folder = folder_of(store)
    if folder is None and not _exists(store):
        return None
    try:
        if folder is not None:
            return (folder / key).read_bytes() if (folder / key).is_file() else None
        buffer = sync(open_store(store).get(key, default_buffer_prototype()))
    except SketchscaleError:
        raise
    except Exception as error:  # every kind of store has its own types; all mean the same here
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{store}/{key} cannot be read ({cause}); expected: a readable object; to fix: restore it"
        ) from error
    return None if buffer is None else buffer.to_bytes()


def blob_tag(store: str, key: str) -> str | None:
    """What changes when an object is written: its tag and size in object storage, else ""; None when it is absent.

    >>> blob_tag("memory://doc-blobs", "nothing") is None
    True
    """
    opened = open_store(store) if _exists(store) else None
    if opened is None:
        return None
    if not is_object_store(opened):
        return "" if sync(opened.exists(check_key(key))) else None
    found = sync(opened.head(check_key(key))) or sync(opened.head(key))
    return None if found is None else f"{found[0]} {found[1]}"


def list_blobs(store: str, prefix: str) -> list[str]:
    """Keys below a prefix (a folder, without the slash; "" is the whole store), sorted; temporary files left out.

    >>> put_blob("memory://doc-list", "a/2", b""); put_blob("memory://doc-list", "a/1", b"")
    >>> list_blobs("memory://doc-list", "a")
    ['a/1', 'a/2']
    """
    return sorted(blob for blob in _all_keys(store, prefix) if not blob.endswith(".partial"))


def has_blobs(store: str) -> bool:
    """Whether there is anything in a store; of a web server, which has no listing, nobody knows: False.

    >>> has_blobs("memory://doc-nothing")
    False
    """
    if store.startswith(("http://", "https://")):
        return False
    if is_local(store) or not _exists(store):
        return next(_all_keys(store, ""), None) is not None
    return sync(_has_any(open_store(store)))


async def _has_any(store: Store) -> bool:
    async for _ in store.list_prefix(""):
        return True
    return False


def _all_keys(store: str, prefix: str) -> Iterator[str]:
    folder = folder_of(store)
    if folder is not None:
        for base, _, names in os.walk(folder / prefix if prefix else folder):
            relative = Path(base).relative_to(folder).as_posix()
            yield from (name if relative == "." else f"{relative}/{name}" for name in names)
        return
    if not _exists(store):
        return
    start = f"{prefix}/" if prefix else ""
    yield from sync(_collect(open_store(store), start))


def _exists(store: str) -> bool:
    """False for a memory store nobody wrote to yet; whether other stores exist shows when they are read."""
    try:
        open_store(store)
    except MissingDataError:
        return False
    return True


async def _collect(store: Store, prefix: str) -> list[str]:
    return [key async for key in store.list_prefix(prefix)]


def blob_stats(store: str, prefix: str) -> list[tuple[str, int, str]]:
    """(key, size in bytes, time or tag of the last change) of every object below a prefix, sorted.

    What identifies an input: cheap (no pixel is read), and different as soon as an object was rewritten. Where a store
    tells no times or tags (memory, zip) the third entry is the empty string or the zip entry's checksum.
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
    return sorted(entry for entry in sync(_entries(opened, prefix)) if not entry[0].endswith(".partial"))


async def _entries(store: PatientStore, prefix: str) -> list[tuple[str, int, str]]:
    return [entry async for entry in store.entries(prefix)]


def delete_blob(store: str, key: str) -> None:
    """Remove one object, and its local folder when that is empty then; nothing happens when it is not there.

    Raises:
        OutputError: the store cannot be written.
    """
    check_key(key)
    with writing(store, key):
        folder = folder_of(store)
        if folder is not None:
            (folder / key).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                (folder / key).parent.rmdir()
        else:
            sync(writable_store(store).delete(key))


def delete_blobs(store: str, prefix: str) -> None:
    """Remove every object below a prefix; local folders that are empty then go too.

    Raises:
        OutputError: the store cannot be written.
    """
    check_key(prefix)
    with writing(store, prefix):
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
    """Remove, in one folder that runs share, the temporary files of processes of this machine that are no more.

    Such folders hold documents that several runs replace (the list of labels), so a living writer's file must stay.
    """
    folder = folder_of(store)
    if folder is None or not (folder / group).is_dir():
        return 0
    strays = [path for path in (folder / group).iterdir() if is_dead_writers(path)]
    with writing(store, group or "."):
        for stray in strays:
            stray.unlink(missing_ok=True)
    return len(strays)


def sweep_partials(store: str, prefix: str = "") -> int:
    """Remove the temporary files that killed writers left below a prefix; returns how many.

    Only a store that no other run writes to below the prefix may be swept: a living writer's file would go too.
    """
    folder = folder_of(store)
    if folder is None:
        return 0
    with writing(store, prefix or "."):
        strays = [folder / key for key in _all_keys(store, prefix) if key.endswith(".partial")]
        for stray in strays:
            stray.unlink(missing_ok=True)
    return len(strays)
