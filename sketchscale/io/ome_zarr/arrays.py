"""Zarr arrays by reference: what tasks read boxes from and write boxes to.

A task carries an `ArrayRef` (two strings), never an array; the worker opens it. All reading and writing of pixels in
this package goes through `read_box` and `write_box`, because plain Zarr has two habits that would break our promises:
a missing chunk reads as zeros without an error, and two writers in one chunk lose data without an error.

Guarantees:
  * an array made by `create_array` stores every chunk that was written, zeros too, with a checksum behind the data:
    so a chunk that is absent was never written, and a flipped bit is an error;
  * `read_box` raises on an absent chunk unless the caller says that absence is legal (sparse input images); in object
    storage the read itself does, so that a chunk which is there when looked for and gone when read is no zeros either;
  * `write_box` takes whole write units only (chunk, or shard where there are shards), so one task owns each key.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numcodecs
import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import Store
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.sync import sync
from zarr.storage import StorePath

from sketchscale.errors import InputError, MissingDataError, OutputError, SketchscaleError
from sketchscale.geometry import Box
from sketchscale.io.ome_zarr.array_limits import check_array_document
from sketchscale.io.stores.addresses import (
    absolute_address,
    is_local,
    is_object_store,
    is_storage_error,
    join_address,
    open_store,
)
from sketchscale.io.stores.blobs import blob_tag, get_blob
from sketchscale.io.stores.documents import parse_json
from sketchscale.io.stores.settings import storage_settings

__all__ = ["ArrayRef", "absent_chunks", "checksum", "create_array", "open_array", "read_box", "write_box", "write_unit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayRef:
    """A Zarr array by address: the store's root, absolute, so that any worker finds it, and the array's path in it."""

    store: str
    path: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "store", absolute_address(self.store))

    def __str__(self) -> str:
        return f"{self.store}/{self.path}" if self.path else self.store


def _open_cached(ref: ArrayRef, *, strict: bool = False) -> zarr.Array[Any]:
    return _open_stamped(ref, _stamp(ref), strict)


@functools.lru_cache(maxsize=64)
def _open_stamped(ref: ArrayRef, stamp: _Stamp, strict: bool) -> zarr.Array[Any]:
    return open_array(ref, strict=strict)


_Stamp = tuple[int | str, ...]


def _stamp(ref: ArrayRef) -> _Stamp:
    """Which metadata an array has: a worker that lives on must not believe those of an older array of the same name.

    Time and file of local ones, server and tag in object storage: one small request for each box.
    """
    if not is_local(ref.store):
        return _remote_stamp(ref)
    for name in ("zarr.json", ".zarray"):
        with contextlib.suppress(OSError):
            stat = os.stat(os.path.join(ref.store, ref.path, name))
            return stat.st_mtime_ns, stat.st_ino
    return ()


def _remote_stamp(ref: ArrayRef) -> _Stamp:
    names = ("zarr.json", ".zarray") if _FORMATS.get(ref) != 2 else (".zarray", "zarr.json")
    for name in names:
        tag = blob_tag(ref.store, f"{ref.path}/{name}" if ref.path else name)
        if tag is not None:
            return (storage_settings().endpoint or "", name, tag)
    return ()


_FORMATS: dict[ArrayRef, int] = {}
"""Where the metadata of remote arrays were found; saves a request for each box of a v2 array."""


def open_array(ref: ArrayRef, *, read_only: bool = True, strict: bool = False) -> zarr.Array[Any]:
    """Open an array; no pixel is read.

    Args:
        strict: in object storage, reading an absent chunk raises MissingDataError.

    Raises:
        MissingDataError: nothing is there.
        InputError: what is there is not a Zarr array.
    """
    zarr_format = _check_document(ref)
    store = open_store(ref.store, read_only=read_only)
    if strict and is_object_store(store):
        store = store.strict()
    try:
        array = zarr.open_array(store, path=ref.path, mode="r" if read_only else "r+", zarr_format=zarr_format)
    except SketchscaleError:
        raise
    except Exception as error:  # eleven types were counted for damaged metadata; all mean the same here
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(
            f"{ref} is not a readable Zarr array ({cause}); expected: intact array metadata; to fix: restore the file"
        ) from error
    return array.with_config(_WRITE_ALL)


def _check_document(ref: ArrayRef) -> Literal[2, 3]:
    """Refuse absurd or hostile array metadata before anything is made of it; returns the Zarr format."""
    formats: tuple[tuple[str, Literal[2, 3]], ...] = (("zarr.json", 3), (".zarray", 2))
    for name, zarr_format in formats:
        data = get_blob(ref.store, f"{ref.path}/{name}" if ref.path else name)
        if data is not None:
            check_array_document(parse_json(data, f"{ref}/{name}"), f"{ref}/{name}")
            if not is_local(ref.store):
                _FORMATS[ref] = zarr_format
            return zarr_format
    raise MissingDataError(f"{ref} does not exist; expected: a Zarr array; to fix: check the path")


_WRITE_ALL: Any = {"write_empty_chunks": True}
"""Not stored with the array, and ignored by zarr.open_array, so it is set again at every opening."""


def create_array(
    ref: ArrayRef,
    *,
    shape: Sequence[int],
    chunks: Sequence[int],
    dtype: npt.DTypeLike,
    shards: Sequence[int] | None = None,
    zarr_format: Literal[2, 3] = 3,
    dimension_names: Sequence[str] | None = None,
    attributes: Mapping[str, Any] | None = None,
    compress: bool = True,
) -> zarr.Array[Any]:
    """Make an array whose chunks carry a checksum; replaces one of the same path.

    Args:
        shape, chunks: in pixels; chunks larger than the array are cut to it.
        shards: whole chunks, Zarr v3 only; then the shard is the write unit.
        compress: zstd level 1, which shrinks labels about fifty times; off for scratch fields, which are noise.
    """
    store, path = _creation_place(ref)
    chunks = tuple(max(1, min(int(c), int(n))) for c, n in zip(chunks, shape, strict=True))
    common: dict[str, Any] = {
        "name": path,
        "shape": tuple(int(n) for n in shape),
        "chunks": chunks,
        "dtype": np.dtype(dtype),
        "attributes": dict(attributes or {}),
        "fill_value": 0,
        "overwrite": True,
        "config": _WRITE_ALL,
        "zarr_format": zarr_format,
    }
    if zarr_format == 2:
        common["compressors"] = numcodecs.Zstd(level=1, checksum=True)
        common["chunk_key_encoding"] = {"name": "v2", "separator": "/"}
    else:
        common["compressors"] = [ZstdCodec(level=1), Crc32cCodec()] if compress else [Crc32cCodec()]
        common["dimension_names"] = dimension_names
        common["shards"] = tuple(shards) if shards is not None else None
    try:
        array = zarr.create_array(store, **common)
    except SketchscaleError:
        raise
    except Exception as error:
        if not is_storage_error(error):
            raise
        raise _output_error(ref, error) from error
    _open_stamped.cache_clear()
    _open_writable.cache_clear()
    return array


def _creation_place(ref: ArrayRef) -> tuple[Store, str]:
    """Where Zarr makes an array: in its own group, because it also writes, and if killed leaves, files in all above.

    Groups further up get their documents when they are committed.
    """
    group, _, name = ref.path.rpartition("/")
    if ref.store.startswith("memory://") or not group:
        return open_store(ref.store, read_only=False), ref.path
    return open_store(join_address(ref.store, group), read_only=False), name


def _output_error(ref: ArrayRef, error: Exception) -> OutputError:
    cause = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
    return OutputError(
        f"cannot write {ref}: {cause}; expected: a writable place with free space; "
        f"to fix: free space or choose another --out, then run again with --resume"
    )


def write_unit(array: zarr.Array[Any]) -> tuple[int, ...]:
    """The smallest box one writer may own: the shard if there are shards, else the chunk."""
    return tuple(array.shards or array.chunks)


def read_box(ref: ArrayRef, box: Box, *, missing: Literal["error", "fill"] = "error") -> npt.NDArray[Any]:
    """The pixels of a box, decoded.

    Args:
        box: inside the array, in its axes.
        missing: what an absent chunk means: `error` for arrays that this package wrote, `fill` (the array's fill
            value) for input images, where sparse storage is legal and `absent_chunks` counts.

    Raises:
        MissingDataError: a chunk is absent.
        InputError: a chunk does not decode; names the array and the box.
    """
    array = _open_cached(ref, strict=missing == "error")
    if missing == "error" and not is_object_store(array.store):
        for key in absent_chunks(ref, box):
            raise MissingDataError(
                f"{ref}: chunk {key} is absent; expected: every chunk of a finished stage; "
                f"to fix: run the stage again with --overwrite, or `sketchscale verify` to list the damage"
            )
    try:
        values = _decoded(array, box, attempts=1 if is_local(ref.store) else 2)
    except SketchscaleError:
        raise
    except Exception as error:  # codecs raise what they like for damaged bytes
        cause = " ".join(f"{error}".split())[:200] or type(error).__name__
        raise InputError(
            f"{ref}: box {box} does not decode ({cause}); expected: intact chunks; to fix: restore the file"
        ) from error
    return np.asarray(values)


def _decoded(array: zarr.Array[Any], box: Box, attempts: int) -> npt.NDArray[Any]:
    """The pixels; what was damaged on its way over a network is read once more."""
    try:
        return np.asarray(array[box.slices])
    except SketchscaleError:
        raise
    except Exception:
        if attempts == 1:
            raise
    return _decoded(array, box, attempts - 1)


def absent_chunks(ref: ArrayRef, box: Box | None = None) -> Iterator[str]:
    """Keys of the write units in a box (the whole array when None) that are not in the store."""
    array = _open_cached(ref)
    unit = write_unit(array)
    box = box or Box((0,) * array.ndim, array.shape)
    ranges = [range(a // u, -(-b // u)) for a, b, u in zip(box.start, box.stop, unit, strict=True)]
    keys = (array.metadata.encode_chunk_key(coordinates) for coordinates in itertools.product(*ranges))
    while batch := tuple(itertools.islice(keys, _AT_ONCE)):
        there = sync(_exist([array.store_path / key for key in batch]))
        yield from (key for key, found in zip(batch, there, strict=True) if not found)


_AT_ONCE = 64


async def _exist(paths: Sequence[StorePath]) -> list[bool]:
    return list(await asyncio.gather(*(path.exists() for path in paths)))


def write_box(ref: ArrayRef, box: Box, values: npt.NDArray[Any]) -> str:
    """Write whole write units; returns a checksum of the values, for the ledger.

    Raises:
        OutputError: the store refuses (read-only, disk full).
        InputError: the box cuts a write unit, or the values would be cast.
    """
    array = _open_for_writing(ref)
    for a, b, u, n in zip(box.start, box.stop, write_unit(array), array.shape, strict=True):
        if a % u or (b % u and b != n):
            raise InputError(f"{ref}: box {box} cuts a write unit of {write_unit(array)}; the plan is wrong")
    if values.dtype != array.dtype:
        raise InputError(f"{ref}: values are {values.dtype}, the array is {array.dtype}; cast them on purpose")
    try:
        array[box.slices] = values
    except SketchscaleError:
        raise
    except Exception as error:
        if not is_storage_error(error):
            raise
        raise _output_error(ref, error) from error
    return checksum(values)


def checksum(values: npt.NDArray[Any]) -> str:
    """CRC-32 of the values in C order, as ledgers keep it: eight hexadecimal digits."""
    return f"{zlib.crc32(np.ascontiguousarray(values).data):08x}"


def _open_for_writing(ref: ArrayRef) -> zarr.Array[Any]:
    return _open_writable(ref, _stamp(ref))


@functools.lru_cache(maxsize=16)
def _open_writable(ref: ArrayRef, stamp: _Stamp) -> zarr.Array[Any]:
    return open_array(ref, read_only=False)
