"""Local files that appear completely or not at all, and locks that let one writer at a time change a file.

A file is written under a temporary name, synced, renamed or linked, and then its folder is synced, so that it survives
a power cut. The temporary name contains the machine and the process, which separates leftovers of killed writers from
the files of living ones. `filelock` takes the lock of the operating system (`flock`, or `LockFileEx` on Windows), which
always ends with its process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import lock_descriptor

from sketchscale.errors import UnreachableError
from sketchscale.io.stores.settings import storage_settings

__all__ = ["is_dead_writers", "locked", "sync_folder", "synced_temporary", "temporary_file"]

_HOST = re.sub(r"[^A-Za-z0-9]", "_", platform.node())[:32]
_OURS = re.compile(rf"\.{_HOST}-(\d+)-[0-9a-f]{{32}}\.partial$")
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def synced_temporary(path: Path, data: bytes) -> Iterator[Path]:
    """Give a synced file next to `path` to rename or link; at the end sync the folder and remove leftovers."""
    with temporary_file(path) as temporary:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
        sync_folder(path.parent)


@contextlib.contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """Give an unused name next to `path`; remove the file at the end if it is still there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{_HOST}-{os.getpid()}-{uuid.uuid4().hex}.partial")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Sync a folder so that renames survive a power cut; does nothing on Windows, where a folder cannot be opened."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_dead_writers(path: Path) -> bool:
    """Return whether this is the temporary file of a process of this machine that has ended."""
    match = _OURS.search(path.name)
    return match is not None and not _is_alive(int(match[1]))


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # there, `os.kill(pid, 0)` sends Ctrl-C; an unknown process counts as alive
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    return True


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, among threads and processes, and among machines if their file system supports locks.

    The lock is a file next to it, which is removed at the end. Without support for locks nothing is held.
    Raises:
        UnreachableError: another writer held it for the `wait_s` of the job.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, started = path.with_name(f"{path.name}.lock.partial"), time.monotonic()
    wait, attempts = storage_settings().wait_s, 0
    while (descriptor := _try_lock(lock)) is None:
        attempts += 1
        if time.monotonic() - started > wait:
            cause = f"another process holds {lock.name}"
            raise UnreachableError.after(str(path), cause, attempts=attempts, seconds=wait)
        time.sleep(0.01)
    try:
        yield
    finally:
        # The file is removed while it is locked, so that no other writer locks a file that has lost its name.
        if os.name != "nt":
            lock.unlink(missing_ok=True)
        os.close(descriptor)
        if os.name == "nt":  # which cannot remove an open file
            with contextlib.suppress(PermissionError):  # the next writer has it open, and removes it
                lock.unlink(missing_ok=True)


def _try_lock(lock: Path) -> int | None:
    """Return a descriptor that holds the lock; None if another writer holds it, or did until just now."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        # The last holder may have removed the file that we opened; on NFS its link count does not show that.
        if lock_descriptor(descriptor, blocking=False) and os.fstat(descriptor).st_ino == lock.stat().st_ino:
            return descriptor
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return descriptor
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
