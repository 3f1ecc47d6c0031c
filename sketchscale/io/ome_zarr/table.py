"""Object tables beside an image: Parquet in the layout other tools read.

    tables                     group, lists the names
    └── cells                  group: ngio's `feature_table`, version 1: what a row is, which labels it belongs to
        └── table.parquet

Guarantees: the bytes depend on the rows and on nothing else (no times; rows are regrouped to a fixed size, however they
arrive); a table is read whole with page checksums verified; its name is listed last, so a reader sees a finished table
or none. Rows are streamed: one row group is in memory at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sketchscale.errors import InputError, MissingDataError, UnknownNameError
from sketchscale.io.ome_zarr.groups import read_attributes, update_attributes, write_attributes
from sketchscale.io.ome_zarr.metadata import Version, ome_attributes, version_of
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
"""Rows per group: what is held in memory, and part of the file's layout, hence fixed."""


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
        store: address of the image (or of a group that holds results).
        name: of the table: one path part.
        columns: with a column `label` of whole numbers; a table, or batches of one schema (at least one batch).
        region: name of the label image that the rows describe.
        attributes: more for the table's group, such as provenance; plain JSON.

    Raises:
        InputError: no column `label`, no batch, or batches that differ in schema.
        OutputError: the store cannot be written.

    >>> write_table("memory://doc-table", "cells", pa.table({"label": [1, 2], "area": [7, 9]}), region="cells")
    >>> read_table("memory://doc-table", "cells")["area"].to_pylist()
    [7, 9]
    """
    root, group = split_address(store)
    if "/" in check_key(name, what="table name"):
        raise InputError.of(found=f"table name {name!r}", expected="a name without '/'", fix="choose another name")
    batches = iter(batches_of(columns) if isinstance(columns, pa.Table) else columns)
    table = _key(group, f"tables/{name}")
    with writing_blob(root, f"{table}/table.parquet") as file:
        _write_parquet(file, batches, f"{join_address(store, 'tables')}/{name}")
    version = _version(root, group)
    write_attributes(root, table, {**(attributes or {}), **_description(region)}, version)
    _list_table(root, group, name, version)


def batches_of(table: pa.Table) -> list[pa.RecordBatch]:
    """The batches of a table in memory; an empty one with its columns where it has no rows.

    >>> [batch.num_rows for batch in batches_of(pa.table({"label": pa.array([], pa.int64())}))]
    [0]
    """
    return table.to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]


def _key(group: str, path: str) -> str:
    return f"{group}/{path}" if group else path


def _description(region: str) -> dict[str, Any]:
    return {
        "type": "feature_table",
        "table_version": "1",
        "backend": "parquet",
        "index_key": "label",
        "instance_key": "label",
        "index_type": "int",
        "region": {"path": f"../labels/{check_key(region, what='region')}"},
    }


def _version(store: str, group: str) -> Version:
    """The version of the image that the table lies beside; 0.5 where there is none."""
    attributes = read_attributes(store, group)
    return "0.5" if attributes is None or "ome" in attributes or not attributes else version_of(attributes, store)


def _write_parquet(file: Any, batches: Iterator[pa.RecordBatch], where: str) -> None:
    first = next(batches, None)
    if first is None or "label" not in first.schema.names or not pa.types.is_integer(first.schema.field("label").type):
        found = "no batch" if first is None else f"columns {', '.join(first.schema.names)[:80]}"
        raise InputError.of(found=f"{where}: {found}", expected="a column 'label' of whole numbers", fix="add it")
    schema = first.schema.remove_metadata()
    with pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True, store_schema=True) as writer:
        for rows in _regroup([first], batches, schema, where):
            writer.write_table(rows, row_group_size=ROW_GROUP)


def _regroup(
    waiting: list[pa.RecordBatch], batches: Iterator[pa.RecordBatch], schema: pa.Schema, where: str
) -> Iterator[pa.Table]:
    """The same rows in groups of ROW_GROUP, whatever the batches were."""
    held = _as_table(waiting, schema, where)
    for batch in batches:
        held = pa.concat_tables([held, _as_table([batch], schema, where)])
        while held.num_rows >= ROW_GROUP:
            yield held.slice(0, ROW_GROUP).combine_chunks()
            held = held.slice(ROW_GROUP)
    for start in range(0, held.num_rows, ROW_GROUP):
        yield held.slice(start, ROW_GROUP).combine_chunks()


def _as_table(batches: list[pa.RecordBatch], schema: pa.Schema, where: str) -> pa.Table:
    try:
        return pa.Table.from_batches([batch.replace_schema_metadata(None) for batch in batches], schema=schema)
    except (pa.ArrowInvalid, ValueError) as error:
        raise InputError(f"{where}: batches of different columns ({str(error).splitlines()[0]})") from error


def _list_table(store: str, group: str, name: str, version: Version) -> None:
    tables = _key(group, "tables")
    where = join_address(store, tables)

    def listed(old: dict[str, Any]) -> dict[str, Any]:
        return {**old, "tables": [*(n for n in _names(old, where) if n != name), name]}

    update_attributes(store, tables, listed, version)


def _names(attributes: Mapping[str, Any], where: str) -> tuple[str, ...]:
    names = attributes.get("tables", ome_attributes(attributes, where).get("tables", []))
    if not isinstance(names, list) or len(names) > 10_000:
        raise InputError.of(found=f"{where}: tables {str(names)[:60]}", expected="a list of names", fix="restore it")
    return tuple(check_key(name, what=f"{where}: table name") for name in names)


def list_tables(store: str | Path) -> tuple[str, ...]:
    """Names of the tables beside an image, in the order of the file."""
    root, group = split_address(store)
    tables = _key(group, "tables")
    return _names(read_attributes(root, tables) or {}, join_address(root, tables))


def require_table(store: str | Path, name: str) -> None:
    """Refuse an image whose labels were not measured.

    Raises:
        MissingDataError: names the command that measures them.
    """
    if name not in list_tables(store):
        raise MissingDataError(
            f"{store} has no table {name!r}; expected: one row per object; "
            f"to fix: sketchscale measure {store} --labels {name}"
        )


def read_table(store: str | Path, name: str) -> pa.Table:
    """A whole table.

    Raises:
        UnknownNameError: lists the tables that are there.
        InputError: it is not Parquet, or a checksum is wrong.
    """
    with _opened(store, name) as file:
        return file.read()


def table_digest(store: str | Path, name: str) -> str:
    """SHA-256 of a table's file: what `verify` compares; the empty string when there is none."""
    root, group = split_address(store)
    key = _key(group, f"tables/{name}/table.parquet")
    path = Path(root) / key
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    data = get_blob(root, key)
    return "" if data is None else hashlib.sha256(data).hexdigest()


def read_batches(store: str | Path, name: str, *, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a table, at most one row group at a time; for tables larger than memory.

    Args:
        columns: only these, as far as the table has them; all when None.

    Returns:
        At least one batch: an empty one with the columns, where the table has no rows.

    Raises:
        UnknownNameError: lists the tables that are there.
        InputError: it is not Parquet, or a checksum is wrong.
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
    key = _key(group, f"tables/{name}/table.parquet")
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
