"""Read and replace the attributes of Zarr groups of either format as one document."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sketchscale.io.ome_zarr.metadata import Version
from sketchscale.io.stores.addresses import join_address
from sketchscale.io.stores.blobs import change_blob, get_blob, put_blob
from sketchscale.io.stores.documents import parse_group, parse_json

__all__ = ["group_key", "read_attributes", "update_attributes", "write_attributes"]


def read_attributes(store: str, group: str) -> dict[str, Any] | None:
    """Return the attributes of a Zarr group of either format; None if there is no group.

    They come from the group's own document, never from consolidated metadata, which may be older.

    Raises:
        InputError: the document is not readable.
    """
    data = get_blob(store, group_key(group, "zarr.json"))
    if data is not None:
        return parse_group(data, f"{join_address(store, group)}/zarr.json")
    if get_blob(store, group_key(group, ".zgroup")) is None and get_blob(store, group_key(group, ".zattrs")) is None:
        return None
    data = get_blob(store, group_key(group, ".zattrs"))
    return {} if data is None else parse_json(data, f"{join_address(store, group)}/.zattrs")


def write_attributes(store: str, group: str, attributes: Mapping[str, Any], version: Version) -> None:
    """Replace the attributes of a group, or create it, by one atomic write, which is the last step of a commit.

    Consolidated metadata of the group is dropped, because it would hide new content from its readers.
    """
    if version == "0.4":
        put_blob(store, group_key(group, ".zgroup"), _V2_GROUP)
    put_blob(store, group_key(group, _DOCUMENTS[version]), _document(attributes, version))


def update_attributes(
    store: str, group: str, change: Callable[[dict[str, Any]], Mapping[str, Any]], version: Version
) -> None:
    """Replace the attributes of a group by the result of `change`; concurrent changes are never lost.

    For documents that several runs write to: the list of labels, the list of tables.

    Args:
        change: takes the current attributes, or {} if there are none; must be idempotent, see `change_blob`.

    >>> update_attributes("memory://doc-update", "labels", lambda old: {**old, "labels": ["cells"]}, "0.5")
    >>> read_attributes("memory://doc-update", "labels")
    {'labels': ['cells']}
    """
    key = group_key(group, _DOCUMENTS[version])
    where = join_address(store, key)

    def changed(data: bytes | None) -> bytes:
        read = parse_group if version == "0.5" else parse_json
        return _document(change((read(data, where) if data is not None else None) or {}), version)

    if version == "0.4":
        put_blob(store, group_key(group, ".zgroup"), _V2_GROUP)
    change_blob(store, key, changed)


_DOCUMENTS: dict[Version, str] = {"0.4": ".zattrs", "0.5": "zarr.json"}
_V2_GROUP = json.dumps({"zarr_format": 2}).encode()


def _document(attributes: Mapping[str, Any], version: Version) -> bytes:
    text = json.dumps(attributes, indent=2, allow_nan=False)
    if version == "0.4":
        return text.encode()
    document = {"zarr_format": 3, "node_type": "group", "attributes": json.loads(text)}
    return json.dumps(document, indent=2).encode()


def group_key(group: str, name: str) -> str:
    """Return the key of a name in a group; the group of the root is empty."""
    return f"{group}/{name}" if group else name
