"""Refuse array metadata that would make a reader allocate, list or run something absurd."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sketchscale.io.stores.documents import bad_metadata

__all__ = ["check_array_document"]

AXIS_LIMIT = 2**31
CHUNK_LIMIT = 10**8
CHUNK_BYTES = 2**31

_CODECS = frozenset({
    "bytes", "transpose", "blosc", "zstd", "gzip", "zlib", "lz4", "bz2", "lzma", "crc32c", "crc32", "adler32",
    "fletcher32", "shuffle", "delta", "bitround", "packbits", "fixedscaleoffset", "sharding_indexed",
})  # fmt: skip
"""Codecs that may decode a chunk: numbers only. Never pickle, json, vlen or anything that can hold an object."""


def check_array_document(document: Mapping[str, Any], where: str) -> None:
    """Check array metadata before it is used.

    Args:
        document: a parsed `zarr.json` or `.zarray`.
        where: the array, for errors.

    Raises:
        InputError: an axis outside 1..2^31, more than 10^8 chunks, a chunk of more than 2 GiB, different numbers of
            axes in shape and chunks, a type that is not a number, or a codec that is not allowed.
    """
    if document.get("zarr_format") not in (2, 3):
        raise bad_metadata(where, f"zarr_format {str(document.get('zarr_format'))[:20]!r}", "2 or 3")
    if document["zarr_format"] == 3 and document.get("node_type") != "array":
        raise bad_metadata(where, f"a Zarr {str(document.get('node_type'))[:20]}", "a Zarr array")
    shape = _lengths(document.get("shape"), where, "shape")
    kind = document.get("data_type" if document["zarr_format"] == 3 else "dtype")
    try:
        dtype = np.dtype(kind) if isinstance(kind, str) else None
    except (TypeError, ValueError, SyntaxError):
        dtype = None
    if dtype is None or dtype.kind not in "biuf":
        raise bad_metadata(where, f"data type {str(kind)[:40]!r}", "a boolean, integer or floating point type")
    for chunks in _chunk_shapes(document, where):
        _check_chunks(shape, chunks, dtype.itemsize, where)
    for name in _codec_names(document, where):
        if name not in _CODECS:
            raise bad_metadata(where, f"codec {name[:40]!r}", f"one of {', '.join(sorted(_CODECS))}")


def _lengths(value: object, where: str, what: str) -> tuple[int, ...]:
    entries = value if isinstance(value, list) else []
    good = 0 < len(entries) <= 8 and all(type(n) is int and 0 < n <= AXIS_LIMIT for n in entries)
    if not good:
        raise bad_metadata(where, f"{what} {str(value)[:60]}", "one to eight whole numbers from 1 to 2^31")
    return tuple(entries)


def _chunk_shapes(document: Mapping[str, Any], where: str) -> Iterator[tuple[int, ...]]:
    """Yield the shape of the chunk grid, and of the inner chunks of shards."""
    if document["zarr_format"] == 2:
        yield _lengths(document.get("chunks"), where, "chunks")
        return
    grid = document.get("chunk_grid")
    settings = grid.get("configuration") if isinstance(grid, dict) else None
    yield _lengths(settings.get("chunk_shape") if isinstance(settings, dict) else None, where, "chunk_shape")
    for codec in _codec_list(document.get("codecs"), where):
        inner = codec.get("configuration")
        if codec.get("name") == "sharding_indexed":
            yield _lengths(inner.get("chunk_shape") if isinstance(inner, dict) else None, where, "inner chunk_shape")


def _check_chunks(shape: tuple[int, ...], chunks: tuple[int, ...], itemsize: int, where: str) -> None:
    if len(shape) != len(chunks):
        raise bad_metadata(where, f"{len(shape)} axes in shape, {len(chunks)} in chunks", "as many in both")
    if math.prod(chunks) * itemsize > CHUNK_BYTES:
        raise bad_metadata(where, f"a chunk of {math.prod(chunks) * itemsize / 2**30:.1f} GiB", "at most 2 GiB")
    count = math.prod(-(-n // c) for n, c in zip(shape, chunks, strict=True))
    if count > CHUNK_LIMIT:
        raise bad_metadata(where, f"{count:.1e} chunks", "at most 10^8")


def _codec_list(value: object, where: str) -> list[dict[str, Any]]:
    entries = value if isinstance(value, list) else []
    codecs = [{"name": codec} if isinstance(codec, str) else codec for codec in entries]
    if len(codecs) > 16 or not all(isinstance(codec, dict) for codec in codecs):
        raise bad_metadata(where, f"codecs {str(value)[:60]}", "a list of named codecs")
    return codecs


def _codec_names(document: Mapping[str, Any], where: str) -> Iterator[str]:
    if document["zarr_format"] == 2:
        compressor, filters = document.get("compressor"), document.get("filters")
        used = ([] if compressor is None else [compressor]) + ([] if filters is None else [filters])
        flat = [entry for item in used for entry in (item if isinstance(item, list) else [item])]
        yield from (str(codec.get("id")) for codec in _codec_list(flat, where))
        return
    yield from _codec_names_v3(document.get("codecs"), where, nested=False)


def _codec_names_v3(value: object, where: str, *, nested: bool) -> Iterator[str]:
    for codec in _codec_list(value, where):
        name = str(codec.get("name")).removeprefix("numcodecs.")
        if name == "sharding_indexed":
            if nested:
                raise bad_metadata(where, "shards inside shards", "one level of shards")
            settings = codec.get("configuration")
            inner = settings if isinstance(settings, dict) else {}
            yield from _codec_names_v3(inner.get("codecs"), where, nested=True)
            yield from _codec_names_v3(inner.get("index_codecs"), where, nested=True)
        yield name
