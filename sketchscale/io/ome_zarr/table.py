"""Read and write the object tables of an image: Parquet in a layout that other tools read.

    tables                     group, lists the names
    └── cells                  group: `feature_table` of ngio, version 1: meaning of a row, and its labels
        └── table.parquet

Guarantees: the bytes depend only on the rows (no times; rows are regrouped to a fixed size); page checksums are
verified when a table is read; the name is listed last, so a reader sees a finished table or none. Rows are streamed:
one row group is in memory at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sketchscale.errors import InputError, MissingDataError, UnknownNameError
from sketchscale.io.ome_zarr.groups import group_key, read_attributes, update_attributes, write_attributes
from sketchscale.io.ome_zarr.metadata import ome_attributes, version_of
from sketchscale.io.stores.addresses import join_address, split_address
from sketchscale.io.stores.blobs import check_key, get_blob, writing_blob

__all__ = [
    "ROW_GROUP",
    "batches_of",
    "list_tables",
    "read_batches",
    "read_table",
    "require_table",
    "table_digest",
    "write_table",
]

ROW_GROUP = 65536
"""Rows per group, which are in memory at a time; fixed, because it is part of the layout of the file."""


def write_table(
    store: str | Path,
    name: str,
    columns: pa.Table | Iterable[pa.RecordBatch],
    *,
    region: str,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write or replace a table of objects.

    Args:
        store: address of the image (or of a group with results).
        name: of the table, without slash.
        columns: a table, or at least one batch, all of one schema; with a column `label` of whole numbers.
        region: name of the label image that the rows describe.
        attributes: more attributes of the group of the table, such as provenance; plain JSON.

    Raises:
        InputError: no column `label`, no batch, or batches that differ in schema.
        OutputError: the store cannot be written.

    >>> write_table("memory://doc-table", "cells", pa.table({"label": [1, 2], "area": [7, 9]}), region="cells")
    >>> read_table("memory://doc-table", "cells")["area"].to_pylist()
    [7, 9]
    """
    root, image = split_address(store)
    if "/" in check_key(name, what="table name"):
        raise InputError.of(found=f"table name {name!r}", expected="a name without '/'", fix="choose another name")
    group, tables, where = group_key(image, f"tables/{name}"), group_key(image, "tables"), join_address(store, "tables")
    region_path = f"../labels/{check_key(region, what='region')}"
    batches = iter(batches_of(columns) if isinstance(columns, pa.Table) else columns)
    first = next(batches, None)
    if first is None or "label" not in first.schema.names or not pa.types.is_integer(first.schema.field("label").type):
        found = "no batch" if first is None else f"columns {', '.join(first.schema.names)[:80]}"
        raise InputError.of(
            found=f"{where}/{name}: {found}", expected="a column 'label' of whole numbers", fix="add it"
        )
    schema = first.schema.remove_metadata()
    with (
        writing_blob(root, f"{group}/table.parquet") as file,
        pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True, store_schema=True) as writer,
    ):
        for rows in _regroup(itertools.chain([first], batches), schema, f"{where}/{name}"):
            writer.write_table(rows, row_group_size=ROW_GROUP)
    described = read_attributes(root, image)  # the table has the version of its image, 0.5 without one
    version = version_of(described, root) if described and "ome" not in described else "0.5"
    write_attributes(root, group, {**(attributes or {}), **_DESCRIPTION, "region": {"path": region_path}}, version)

    def listed(old: dict[str, Any]) -> dict[str, Any]:
        return {**old, "tables": [*(n for n in _names(old, where) if n != name), name]}

    update_attributes(root, tables, listed, version)


_DESCRIPTION = {
    "type": "feature_table",
    "table_version": "1",
    "backend": "parquet",
    "index_key": "label",
    "instance_key": "label",
    "index_type": "int",
}


def batches_of(table: pa.Table) -> list[pa.RecordBatch]:
    """Return the batches of a table in memory; one empty batch with its columns if it has no rows.

    >>> [batch.num_rows for batch in batches_of(pa.table({"label": pa.array([], pa.int64())}))]
    [0]
    """
    return table.to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]


def _regroup(batches: Iterable[pa.RecordBatch], schema: pa.Schema, where: str) -> Iterator[pa.Table]:
    """Yield the rows in groups of ROW_GROUP, for any size of batches."""
    held = schema.empty_table()
    for batch in batches:
        try:
            rows = pa.Table.from_batches([batch.replace_schema_metadata(None)], schema=schema)
        except (pa.ArrowInvalid, ValueError) as error:
            raise InputError(f"{where}: batches of different columns ({str(error).splitlines()[0]})") from error
        held = pa.concat_tables([held, rows])
        while held.num_rows >= ROW_GROUP:
            yield held.slice(0, ROW_GROUP).combine_chunks()
            held = held.slice(ROW_GROUP)
    if held.num_rows:
        yield held.combine_chunks()


def _names(attributes: Mapping[str, Any], where: str) -> tuple[str, ...]:
    names = attributes.get("tables", ome_attributes(attributes, where).get("tables", []))
    if not isinstance(names, list) or len(names) > 10_000:
        raise InputError.of(found=f"{where}: tables {str(names)[:60]}", expected="a list of names", fix="restore it")
    return tuple(check_key(name, what=f"{where}: table name") for name in names)


def list_tables(store: str | Path) -> tuple[str, ...]:
    """Return the names of the tables of an image, in the order of the file."""
    root, group = split_address(store)
    tables = group_key(group, "tables")
    return _names(read_attributes(root, tables) or {}, join_address(root, tables))


def require_table(store: str | Path, name: str) -> None:
    """Check that the labels of an image were measured.

    Raises:
        MissingDataError: they were not; names the command that measures them.
    """
    if name not in list_tables(store):
        raise MissingDataError(
            f"{store} has no table {name!r}; expected: one row per object; "
            f"to fix: sketchscale measure {store} --labels {name}"
        )


def read_table(store: str | Path, name: str) -> pa.Table:
    """Return a whole table.

    Raises:
        UnknownNameError: no such table; lists the existing ones.
        InputError: not Parquet, or a wrong checksum.
    """
    with _opened(store, name) as file:
        return file.read()


def table_digest(store: str | Path, name: str) -> str:
    """Return the SHA-256 of the file of a table, which `verify` compares; empty if there is none."""
    root, group = split_address(store)
    key = group_key(group, f"tables/{name}/table.parquet")
    path = Path(root) / key
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    data = get_blob(root, key)
    return "" if data is None else hashlib.sha256(data).hexdigest()


def read_batches(store: str | Path, name: str, *, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a table, at most one row group at a time; for tables larger than memory.

    Args:
        columns: only these, if the table has them; None means all.

    Yields:
        At least one batch: an empty one with the columns if the table has no rows.

    Raises:
        UnknownNameError: no such table; lists the existing ones.
        InputError: not Parquet, or a wrong checksum.
    """
    with _opened(store, name) as file:
        if not file.metadata.num_rows:
            yield from batches_of(file.read(columns=columns))
            return
        yield from file.iter_batches(batch_size=ROW_GROUP, columns=columns)


@contextlib.contextmanager
def _opened(store: str | Path, name: str) -> Iterator[pq.ParquetFile]:
    root, group = split_address(store)
    known = list_tables(store)
    if name not in known:
        raise UnknownNameError.among(f"table in {store}:", name, known)
    key = group_key(group, f"tables/{name}/table.parquet")
    path = Path(root) / key
    source: Any = path if path.is_file() else io.BytesIO(get_blob(root, key) or b"")
    try:
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError.of(
            found=f"{join_address(root, key)} is not readable ({str(error).splitlines()[0][:120]})",
            expected="an intact Parquet table",
            fix="run measure again with --overwrite",
        ) from error
