"""Read and write boxes of Zarr arrays, which tasks name by reference.

A task carries an `ArrayRef` (two strings), never an array; the worker opens it. All pixels in this package are read by
`read_box` and written by `write_box`, because two properties of plain Zarr would break our promises: a missing chunk
reads as zeros without an error, and two writers of one chunk lose data without an error.

Guarantees:
  * an array made by `create_array` stores every written chunk, zeros too, with a checksum after the data: so an absent
    chunk was never written, and a flipped bit is an error;
  * `read_box` raises on an absent chunk unless the caller allows it (sparse input images). In object storage the read
    itself checks this, so a chunk that disappears between a check and the read does not become zeros either;
  * `write_box` accepts whole write units only (chunk, or shard if there are shards), so each key has one task.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numcodecs
import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.sync import sync
from zarr.storage import StorePath

from sketchscale.errors import InputError, MissingDataError, SketchscaleError
from sketchscale.geometry import Box
from sketchscale.io.ome_zarr.array_limits import check_array_document
from sketchscale.io.stores.addresses import (
    absolute_address,
    is_local,
    is_object_store,
    join_address,
    open_store,
)
from sketchscale.io.stores.blobs import blob_tag, get_blob, writing
from sketchscale.io.stores.documents import parse_json
from sketchscale.io.stores.settings import storage_settings

__all__ = ["ArrayRef", "absent_chunks", "checksum", "create_array", "open_array", "read_box", "write_box", "write_unit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayRef:
    """A Zarr array by address: the absolute address of its store, valid for any worker, and its path inside."""

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
    """Return what identifies the stored metadata, so that a worker does not use those of an older array of this name.

    Time and inode of a local file; server and tag in object storage, which costs one small request per box.
    """
    for name in ("zarr.json", ".zarray") if _FORMATS.get(ref) != 2 else (".zarray", "zarr.json"):
        if is_local(ref.store):
            with contextlib.suppress(OSError):
                stat = os.stat(os.path.join(ref.store, ref.path, name))
                return stat.st_mtime_ns, stat.st_ino
        else:
            tag = blob_tag(ref.store, f"{ref.path}/{name}" if ref.path else name)
            if tag is not None:
                return (storage_settings().endpoint or "", name, tag)
    return ()


_DOCUMENTS: dict[str, Literal[2, 3]] = {"zarr.json": 3, ".zarray": 2}
_FORMATS: dict[ArrayRef, int] = {}
"""Formats of remote arrays, which save a request for each box of a v2 array."""


def open_array(ref: ArrayRef, *, read_only: bool = True, strict: bool = False) -> zarr.Array[Any]:
    """Open an array; no pixel is read.

    Args:
        strict: in object storage, reading an absent chunk raises MissingDataError.

    Raises:
        MissingDataError: it does not exist.
        InputError: it is not a Zarr array, or its metadata is hostile.
    """
    documents = ((name, get_blob(ref.store, f"{ref.path}/{name}" if ref.path else name)) for name in _DOCUMENTS)
    name, data = next(((name, data) for name, data in documents if data is not None), ("", None))
    if data is None:
        raise MissingDataError(f"{ref} does not exist; expected: a Zarr array; to fix: check the path")
    check_array_document(parse_json(data, f"{ref}/{name}"), f"{ref}/{name}")
    if not is_local(ref.store):
        _FORMATS[ref] = _DOCUMENTS[name]
    store = open_store(ref.store, read_only=read_only)
    if is_object_store(store) and strict:
        store = store.strict()
    try:
        array = zarr.open_array(store, path=ref.path, mode="r" if read_only else "r+", zarr_format=_DOCUMENTS[name])
    except SketchscaleError:
        raise
    except Exception as error:  # zarr raises eleven types for damaged metadata; all mean the same here
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(
            f"{ref} is not a readable Zarr array ({cause}); expected: intact array metadata; to fix: restore the file"
        ) from error
    return array.with_config(_WRITE_ALL)


_WRITE_ALL: Any = {"write_empty_chunks": True}
"""Zarr does not store this, and zarr.open_array ignores it, so it is set each time an array is opened."""


def create_array(
    ref: ArrayRef,
    *,
    shape: Sequence[int],
    chunks: Sequence[int],
    dtype: npt.DTypeLike,
    shards: Sequence[int] | None = None,
    zarr_format: Literal[2, 3] = 3,
    dimension_names: Sequence[str] | None = None,
    compress: bool = True,
) -> zarr.Array[Any]:
    """Create an array whose chunks have a checksum; replace one of the same path.

    Args:
        shape, chunks: in pixels; chunks larger than the array are cut to it.
        shards: a multiple of the chunks, Zarr v3 only; the shard is then the write unit.
        compress: zstd level 1, which shrinks labels about fifty times; off for scratch fields, which are noise.
    """
    # In the array's own group, because Zarr also writes documents of the groups above, and leaves them if killed.
    # Groups further up get their documents when they are committed.
    group, _, path = ref.path.rpartition("/")
    if ref.store.startswith("memory://"):
        group, path = "", ref.path
    store = open_store(join_address(ref.store, group), read_only=False)
    chunks = tuple(max(1, min(int(c), int(n))) for c, n in zip(chunks, shape, strict=True))
    common: dict[str, Any] = {
        "name": path,
        "shape": tuple(int(n) for n in shape),
        "chunks": chunks,
        "dtype": np.dtype(dtype),
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
    with writing(str(ref)):
        array = zarr.create_array(store, **common)
    _open_stamped.cache_clear()
    _open_writable.cache_clear()
    return array


def write_unit(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Return the smallest box that one writer may own: the shard if there are shards, else the chunk."""
    return tuple(array.shards or array.chunks)


def read_box(ref: ArrayRef, box: Box, *, missing: Literal["error", "fill"] = "error") -> npt.NDArray[Any]:
    """Return the decoded pixels of a box.

    Args:
        box: inside the array, in its axes.
        missing: "error" for arrays of this package, where every chunk is stored; "fill" reads absent chunks of input
            images, which may be sparse, as the fill value.

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
    attempts = 1 if is_local(ref.store) else 2  # bytes that a network damaged are read once more
    while True:
        attempts -= 1
        try:
            return np.asarray(array[box.slices])
        except SketchscaleError:
            raise
        except Exception as error:  # codecs raise any type for damaged bytes
            if attempts:
                continue
            cause = " ".join(f"{error}".split())[:200] or type(error).__name__
            raise InputError(
                f"{ref}: box {box} does not decode ({cause}); expected: intact chunks; to fix: restore the file"
            ) from error


def absent_chunks(ref: ArrayRef, box: Box | None = None) -> Iterator[str]:
    """Yield the keys of the write units in a box (None: the whole array) that are not in the store."""
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
    """Write whole write units; return a checksum of the values for the ledger.

    Raises:
        OutputError: the store cannot be written (read only, disk full).
        InputError: the box cuts a write unit, or the values have another type.
    """
    array = _open_writable(ref, _stamp(ref))
    for a, b, u, n in zip(box.start, box.stop, write_unit(array), array.shape, strict=True):
        if a % u or (b % u and b != n):
            raise InputError(f"{ref}: box {box} cuts a write unit of {write_unit(array)}; the plan is wrong")
    if values.dtype != array.dtype:
        raise InputError(f"{ref}: values are {values.dtype}, the array is {array.dtype}; cast them on purpose")
    with writing(str(ref)):
        array[box.slices] = values
    return checksum(values)


def checksum(values: npt.NDArray[Any]) -> str:
    """Return the CRC-32 of the values in C order as eight hexadecimal digits, as in ledgers."""
    return f"{zlib.crc32(np.ascontiguousarray(values).data):08x}"


@functools.lru_cache(maxsize=16)
def _open_writable(ref: ArrayRef, stamp: _Stamp) -> zarr.Array[Any]:
    return open_array(ref, read_only=False)
