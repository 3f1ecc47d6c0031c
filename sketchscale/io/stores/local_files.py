"""Local files that appear whole or not at all, and that one writer at a time may change.

A file is written under a temporary name, synced, renamed or linked, and then its folder is synced, so that it outlives
a power cut. The temporary name tells machine and process, so that what a killed writer left can be told from what a
living one is writing. A lock is the system's, taken by `filelock` (`flock`, or `LockFileEx` on Windows): it goes with
its process, however that ends.
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
    """A synced file beside `path` that the caller renames or links; then the folder is synced and leftovers removed."""
    with temporary_file(path) as temporary:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
        sync_folder(path.parent)


@contextlib.contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """A name beside `path` that nobody else uses; what is there in the end is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{_HOST}-{os.getpid()}-{uuid.uuid4().hex}.partial")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder outlive a power cut; on Windows, where no folder can be opened, do nothing."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_dead_writers(path: Path) -> bool:
    """Whether a file is the temporary one of a process of this machine that is no more."""
    match = _OURS.search(path.name)
    return match is not None and not _is_alive(int(match[1]))


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # there, `os.kill(pid, 0)` sends Ctrl-C; what cannot be asked counts as alive
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, so there
        return True
    return True


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """The only writer of a file, among threads and processes, and among machines where their file system has locks.

    The lock is a file beside it that is removed at the end. Where there are no locks at all, nothing is held.

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
        _unlock(lock, descriptor)


def _try_lock(lock: Path) -> int | None:
    """A descriptor that holds the lock, None while another one does, or did until just now."""
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


def _unlock(lock: Path, descriptor: int) -> None:
    """Remove the file while it is locked, so that no other writer locks a file without a name.

    Windows removes no open file: there the file goes after it was closed.
    """
    if os.name != "nt":
        lock.unlink(missing_ok=True)
    os.close(descriptor)
    if os.name == "nt":
        with contextlib.suppress(PermissionError):  # the next writer has it open, and removes it
            lock.unlink(missing_ok=True)
