"""Write the files that a user names (--out and similar) completely or not at all, in a folder or in object storage.

Taken for a local path, `s3://bucket/counts.csv` would silently create a folder `s3:` in the working directory. So all
code that writes a file uses these functions or `require_local`.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

from zarr.core.sync import sync

from sketchscale.errors import InputError, MissingDataError, OutputError
from sketchscale.io.stores.addresses import address_parts, is_local, open_store
from sketchscale.io.stores.blobs import get_blob, put_blob, writing_blob

__all__ = [
    "get_file",
    "has_file",
    "list_names",
    "put_file",
    "replacing_file",
    "require_local",
    "split_file",
    "writing_file",
    "writing_place",
]


def split_file(address: str | Path) -> tuple[str, str]:
    """Return the store of a file and its key there.

    Raises:
        InputError: the address ends without the name of a file.

    >>> split_file("s3://bucket/run/counts.csv")
    ('s3://bucket/run', 'counts.csv')
    """
    text = str(address)
    if is_local(text):
        path = Path(text).absolute()
        return str(path.parent), path.name
    head, inside, tail = address_parts(text)
    folder, _, name = inside.rpartition("/")
    if not name or not (folder or tail):
        raise InputError.of(found=text, expected="the name of a file", fix="write s3://bucket/name.csv")
    return f"{head}{folder}{tail}", name


def put_file(address: str | Path, data: bytes) -> str:
    """Write or replace one file; return its address.

    Raises:
        OutputError: it cannot be written.

    >>> put_file("memory://doc-files/a.csv", b"x")
    'memory://doc-files/a.csv'
    """
    put_blob(*split_file(address), data)
    return str(address)


def writing_file(address: str | Path) -> AbstractContextManager[IO[bytes]]:
    """Give a file to stream into; see `blobs.writing_blob`."""
    return writing_blob(*split_file(address))


def get_file(address: str | Path) -> bytes:
    """Return the bytes of one file.

    Raises:
        FileNotFoundError, OSError: it does not exist, or this process may not read it.
        InputError: its store cannot be read.

    >>> get_file(put_file("memory://doc-files/b.csv", b"y"))
    b'y'
    """
    if is_local(address):
        return Path(address).read_bytes()
    data = get_blob(*split_file(address))
    if data is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(address))
    return data


def has_file(address: str | Path) -> bool:
    """Return whether a file or a local folder exists.

    Raises:
        InputError: the store cannot be read.
    """
    if is_local(address):
        return Path(address).exists()
    return get_blob(*split_file(address)) is not None


def list_names(store: str, folder: str = "") -> list[str]:
    """Return the sorted names directly inside a folder of a store; empty if the store does not exist.

    >>> _ = put_file("memory://doc-names/a.csv", b"")
    >>> list_names("memory://doc-names"), list_names("memory://doc-no-names")
    (['a.csv'], [])
    """
    try:
        opened = open_store(store)
    except MissingDataError:
        return []

    async def collect() -> list[str]:
        names = {name.strip("/").rpartition("/")[2] async for name in opened.list_dir(folder)}
        return sorted(names - {""})

    return sync(collect())


def require_local(address: str | Path, what: str = "--out") -> Path:
    """Return the path of something that can only be written to this machine.

    Raises:
        InputError: an address in object storage.

    >>> require_local("model").name
    'model'
    """
    if not is_local(address):
        raise InputError.of(
            found=f"{what} {address}", expected="a path on this machine", fix="write it here, then copy it there"
        )
    return Path(address)


@contextmanager
def writing_place(place: str, *, fix: str = "free space, or another --out") -> Iterator[None]:
    """Turn errors of the operating system while `place` is written into an OutputError.

    Raises:
        OutputError: it cannot be written.

    >>> try:
    ...     with writing_place("a.csv", fix="free space"):
    ...         raise PermissionError(13, "Permission denied")
    ... except OutputError as error:
    ...     print(error)
    cannot write a.csv: Permission denied; expected: a writable place with free space; to fix: free space
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, InputError):
            raise
        raise OutputError(
            f"cannot write {place}: {error.strerror or error}; expected: a writable place with free space; "
            f"to fix: {fix}"
        ) from error


@contextmanager
def replacing_file(out: str) -> Iterator[Path]:
    """Give a file next to the local `out` to write to. It becomes `out` at the end, or is removed if the block raises.

    Raises:
        OutputError: it cannot be written.
    """
    partial = Path(out).with_name(f"{uuid.uuid4().hex}.partial.{Path(out).name}")
    with writing_place(out):
        try:
            yield partial
            partial.replace(out)
        finally:
            partial.unlink(missing_ok=True)
