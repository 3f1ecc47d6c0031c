"""A Zarr store on S3, GCS, Azure and HTTP that retries, verifies writes and never returns zeros for a missing chunk.

`PatientStore` stands between obstore (which talks to the servers) and Zarr (which reads "404" as "all zeros"):

  * every call is retried within a deadline (`stores.retries`) and ends with a typed error that names the key;
  * an answer that looks wrong (absent, empty, an XML error with status 200, bytes that differ from the MD5 tag) is
    requested once more, and accepted if it comes twice;
  * every write is verified (one HEAD: size and tag), because a PUT can be acknowledged and lost. The HEAD costs a
    twelfth of the PUT and one round trip, which the chunks of a box share. A check of all chunks at the end would find
    a loss only when its worker has gone, and no loss if an older object has the name;
  * in strict mode, for arrays that this package wrote, an absent chunk is a MissingDataError, never zeros;
  * `create` and `replace` are conditional PUTs. Each carries a unique name, so a writer that lost the answer can find
    out whether it won.

Each bucket has one client, hence one pool of connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype

from sketchscale.errors import InputError, MissingDataError, OutputError, SketchscaleError
from sketchscale.io.stores.buckets import connect, split_bucket
from sketchscale.io.stores.retries import NotStoredError, code_of, persist, refusal, status_of, within
from sketchscale.io.stores.settings import storage_settings

__all__ = ["Found", "PatientStore"]

_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
_TAGGED_BYTES = 2**20
_BATCH = 1000
_CONFLICTS = ("ConditionalRequestConflict", "OperationAborted")
_PROVEN: set[tuple[str, str | None]] = set()
"""(bucket, endpoint) pairs that are known to honour the conditions of a PUT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An object as read: its bytes, its version, and the name of its writer if it was a conditional PUT."""

    data: bytes
    e_tag: str | None
    version: str | None
    writer: str = ""

    @property
    def is_odd(self) -> bool:
        """Whether it looks like a fault of the server rather than a stored object."""
        if not self.data or self.data.startswith((b"<?xml", b"<Error")):
            return True
        tag = (self.e_tag or "").strip('"')
        if len(self.data) > _TAGGED_BYTES or not re.fullmatch(r"[0-9a-f]{32}", tag):
            return False
        return hashlib.md5(self.data, usedforsecurity=False).hexdigest() != tag


class PatientStore(Store):
    """A prefix of a bucket; picklable, without credentials.

    Args:
        address: such as s3://bucket/images/x.zarr.
        read_only: refuse to write.
        strict: an absent chunk is an error; metadata may be absent.
    """

    supports_writes = True
    supports_deletes = True
    supports_listing = True

    def __init__(self, address: str, *, read_only: bool = False, strict: bool = False) -> None:
        super().__init__(read_only=read_only)
        self.address, self.is_strict = address.rstrip("/"), strict
        self._root, self._prefix = split_bucket(self.address)
        connect(self._root)  # errors in the address or the environment show here

    @property
    def _server(self) -> Any:
        return connect(self._root)

    def strict(self) -> PatientStore:
        """Return the same store in strict mode, in which an absent chunk is an error."""
        return PatientStore(self.address, read_only=self.read_only, strict=True)

    def with_read_only(self, read_only: bool = False) -> PatientStore:
        """Return the same store, read only or writable."""
        return PatientStore(self.address, read_only=read_only, strict=self.is_strict)

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(PatientStore, read_only=self.read_only, strict=self.is_strict), (self.address,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PatientStore) and (self.address, self.read_only) == (other.address, other.read_only)

    def __hash__(self) -> int:
        return hash((self.address, self.read_only))

    def __repr__(self) -> str:
        return f"PatientStore({self.address!r})"

    def _path(self, key: str) -> str:
        return f"{self._prefix}/{key}".strip("/")

    def _name(self, key: str) -> str:
        return f"{self.address}/{key}"

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return an object or a range of it; None if it is absent, or an error in strict mode."""
        found = await self._twice(key, byte_range)
        if found is not None:
            return prototype.buffer.from_bytes(found.data)
        if self.is_strict and key.rpartition("/")[2] not in _METADATA:
            raise MissingDataError(
                f"{self._name(key)} is absent; expected: every chunk of a finished stage; "
                f"to fix: run the stage again with --overwrite, or `sketchscale verify` to list the damage"
            )
        return None

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return several ranges, requested at the same time."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def fetch(self, key: str) -> Found | None:
        """Return a whole object with its version; None if it is absent."""
        return await self._twice(key, None)

    async def _twice(self, key: str, part: ByteRequest | None) -> Found | None:
        """Read, and repeat an odd answer until it comes twice."""
        found = await self._once(key, part)
        for _ in range(3):
            if found is not None and (part is not None or not found.is_odd):
                break
            before, found = found, await self._once(key, part)
            if found == before:
                break
        return found

    async def _once(self, key: str, part: ByteRequest | None) -> Found | None:
        try:
            return await persist(self._name(key), functools.partial(self._read, key, part))
        except FileNotFoundError:
            return None

    async def _read(self, key: str, part: ByteRequest | None, seconds: float) -> Found:
        import obstore  # an optional path: keeps local work free of its import time

        options: Any = None if part is None else {"range": _range(part)}
        try:
            answer = await within(seconds, obstore.get_async(self._server, self._path(key), options=options))
        except obstore.exceptions.BaseError as error:
            text = type(error).__name__ + str(error)
            if part is None or not any(w in text for w in ("NotSupportedError", "ange request", "Content-Range")):
                raise
            whole = await self._read(key, None, seconds)  # servers without ranges, Azure without suffixes
            if isinstance(part, RangeByteRequest):
                data = whole.data[part.start : part.end]
            else:
                data = whole.data[part.offset :] if isinstance(part, OffsetByteRequest) else whole.data[-part.suffix :]
            return Found(data=data, e_tag=whole.e_tag, version=whole.version)
        start, stop = answer.range
        data = bytes(await within(seconds, answer.bytes_async(), stop - start))
        if len(data) != stop - start:
            raise NotStoredError(f"{len(data)} bytes of {stop - start} came")
        meta = answer.meta
        writer = str(answer.attributes.get("writer", ""))
        return Found(data=data, e_tag=meta.get("e_tag"), version=meta.get("version"), writer=writer)

    async def exists(self, key: str) -> bool:
        """Return whether an object exists; asked twice if it seems absent."""
        return await self.head(key) is not None or await self.head(key) is not None

    async def head(self, key: str) -> tuple[int, str | None] | None:
        """Return size and tag of an object; None if the server answers once that it is absent."""
        import obstore

        async def ask(seconds: float) -> Any:
            return await within(seconds, obstore.head_async(self._server, self._path(key)))

        try:
            meta = await persist(self._name(key), ask)
        except FileNotFoundError:
            return None
        return int(meta["size"]), meta.get("e_tag")

    async def getsize(self, key: str) -> int:
        """Return the size of an object in bytes."""
        found = await self.head(key) or await self.head(key)
        if found is None:
            raise FileNotFoundError(self._name(key))
        return found[0]

    async def set(self, key: str, value: Buffer) -> None:
        """Write or replace an object."""
        self._check_writable()
        await self._put(key, value.to_bytes(), "overwrite")

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write an object unless it exists; see `create`."""
        await self.create(key, value.to_bytes())

    async def create(self, key: str, data: bytes) -> bool:
        """Store an object unless it exists; exactly one of several concurrent writers gets True.

        Raises:
            OutputError: this storage has no conditional PUTs; tested once per bucket and process.
        """
        self._check_writable()
        await self._prove()
        return await self._put(key, data, "create")

    async def replace(self, key: str, data: bytes, old: Found) -> bool:
        """Store an object if the existing one is still `old`.

        Returns:
            False if another writer was faster, also if ours was stored and replaced before it could be verified.
        """
        self._check_writable()
        await self._prove()
        version = {"e_tag": old.e_tag, "version": old.version}
        return await self._put(key, data, {k: v for k, v in version.items() if v is not None})

    async def _prove(self) -> None:
        """Refuse storage that ignores or does not support the conditions of a PUT."""
        place = (self._root, storage_settings().endpoint)
        if place in _PROVEN:
            return
        probe, other = f".sketchscale-probe-{uuid.uuid4().hex}", {"e_tag": f'"{"0" * 32}"'}
        if self.address.startswith("gs://"):
            other["version"] = "1"
        attempts: tuple[tuple[bytes, Any], ...] = ((b"1", "create"), (b"2", "create"), (b"3", other))
        try:
            kept = [await self._put(probe, data, mode) for data, mode in attempts]
        except OutputError as error:
            if "cannot do this" not in str(error) and "refuses the request" not in str(error):
                raise
            raise _unfit(self._root) from error
        finally:
            with contextlib.suppress(SketchscaleError):
                await self.delete_keys([probe])
        if kept != [True, False, False]:
            raise _unfit(self._root)
        _PROVEN.add(place)

    async def _put(self, key: str, data: bytes, mode: Any) -> bool:
        import obstore

        name, writer = self._name(key), uuid.uuid4().hex
        named: Any = None if mode == "overwrite" else {"writer": writer}
        options: Any = {"mode": mode, "attributes": named, "use_multipart": False}

        async def ask(seconds: float) -> bool:
            try:
                put = obstore.put_async(self._server, self._path(key), data, **options)
                result = await within(seconds, put, len(data))
            except (obstore.exceptions.AlreadyExistsError, obstore.exceptions.PreconditionError) as error:
                if code_of(error) in _CONFLICTS or mode == "overwrite":  # two at a time: the winner is not known yet
                    raise NotStoredError("two writers at a time") from error
                found = await self._twice(key, None)
                return found is not None and found.writer == writer
            except FileNotFoundError as error:
                if refusal(name, error, writing=True) is not None:
                    raise
                if isinstance(mode, dict):
                    return False  # the object to replace is gone
                raise NotStoredError(f"status {status_of(error)} to a PUT") from error
            stored, e_tag = await self.head(key), result.get("e_tag")
            if stored is None or stored[0] != len(data) or (e_tag and stored[1] and e_tag != stored[1]):
                raise NotStoredError("the write was acknowledged, but the object is not there")
            return True

        return await persist(name, ask, writing=True)

    async def delete(self, key: str) -> None:
        """Remove an object."""
        self._check_writable()
        await self.delete_keys([key])

    async def delete_keys(self, keys: Sequence[str]) -> None:
        """Remove objects, up to a thousand per request."""
        import obstore

        for start in range(0, len(keys), _BATCH):
            batch = [self._path(key) for key in keys[start : start + _BATCH]]

            async def ask(seconds: float, batch: list[str] = batch) -> None:
                await within(seconds, obstore.delete_async(self._server, batch), 20_000 * len(batch))

            try:
                await persist(self._name(keys[start]), ask, writing=True)
            except FileNotFoundError:  # one of them, which S3 does not report; the others may still exist
                for key in keys[start : start + _BATCH] if len(batch) > 1 else ():
                    await self.delete_keys([key])

    async def delete_dir(self, prefix: str) -> None:
        """Remove all objects below a prefix."""
        self._check_writable()
        await self.delete_keys([key async for key in self.list_prefix(f"{prefix.rstrip('/')}/" if prefix else "")])

    async def entries(self, prefix: str) -> AsyncIterator[tuple[str, int, str]]:
        """Yield (key, size, tag or time) of every object below a prefix, page by page, in the order of the server.

        An empty listing is requested twice, because an error page looks like one.

        Raises:
            InputError: a web server, which has no listing.
        """
        if self.address.startswith("http"):
            raise InputError.of(
                found=f"a listing of {self.address}", expected="storage that lists", fix="copy the image to a folder"
            )
        last: str | None = None
        for _ in range(2):
            async for entry in self._entries(prefix):
                last = entry[0]
                yield entry
            if last is not None:
                return

    async def _entries(self, prefix: str) -> AsyncIterator[tuple[str, int, str]]:
        import obstore

        start, last = self._path(prefix), None
        pages: Any = None

        async def ask(seconds: float) -> Any:
            nonlocal pages
            if pages is None:
                pages = obstore.list(self._server, start or None, offset=last, chunk_size=_BATCH)
            try:
                return await within(seconds, _next_page(pages))
            except BaseException:
                pages = None  # start again after the last key
                raise

        while True:
            page = await persist(self._name(prefix), ask)
            if page is None:
                return
            for meta in page:
                last = meta["path"]
                key = last.removeprefix(self._prefix).strip("/") if self._prefix else last
                yield key, int(meta["size"]), str(meta.get("e_tag") or meta.get("last_modified") or "")

    async def list(self) -> AsyncGenerator[str, None]:
        """Yield all keys."""
        async for key, _, _ in self.entries(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        """Yield the keys below a prefix."""
        async for key, _, _ in self.entries(prefix.rstrip("/")):
            yield key

    async def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """Yield the names directly below a prefix, without their contents: a folder of plates costs one request."""
        import obstore

        async def ask(seconds: float) -> Any:
            below = self._path(prefix) or None
            return await within(seconds, obstore.list_with_delimiter_async(self._server, below))

        found = await persist(self._name(prefix), ask)
        for path in sorted([*found["common_prefixes"], *(meta["path"] for meta in found["objects"])]):
            yield path.strip("/").rpartition("/")[2]


def _unfit(root: str) -> OutputError:
    return OutputError(
        f"output in a bucket without put-if-absent ({root}): two runs could write to it at the same time; "
        f"expected: storage with conditional PUTs (If-None-Match, If-Match); to fix: another --out, or a newer server"
    )


async def _next_page(pages: Any) -> Any:
    return await anext(pages, None)


def _range(part: ByteRequest) -> Any:
    if isinstance(part, RangeByteRequest):
        return (part.start, part.end)
    return {"offset": part.offset} if isinstance(part, OffsetByteRequest) else {"suffix": part.suffix}
