"""Attributes of Zarr groups of either format, read and replaced as one document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sketchscale.errors import InputError
from sketchscale.io.blobs import get_blob, put_blob
from sketchscale.io.documents import parse_json
from sketchscale.io.metadata import Version
from sketchscale.io.store import join_address

__all__ = ["group_key", "read_attributes", "write_attributes"]


def read_attributes(store: str, group: str) -> dict[str, Any] | None:
    """Attributes of a Zarr group of either format; None when there is no group.

    Read from the group's own document, never from consolidated metadata, which may be older.

    Raises:
        InputError: the document is not readable.
    """
    data = get_blob(store, group_key(group, "zarr.json"))
    if data is not None:
        document = parse_json(data, f"{join_address(store, group)}/zarr.json")
        if document.get("zarr_format") != 3 or document.get("node_type") != "group":
            return None
        attributes = document.get("attributes") or {}
        if not isinstance(attributes, dict):
            raise InputError(f"{join_address(store, group)}/zarr.json: attributes are no object; to fix: restore it")
        return attributes
    if get_blob(store, group_key(group, ".zgroup")) is None and get_blob(store, group_key(group, ".zattrs")) is None:
        return None
    data = get_blob(store, group_key(group, ".zattrs"))
    return {} if data is None else parse_json(data, f"{join_address(store, group)}/.zattrs")


def write_attributes(store: str, group: str, attributes: Mapping[str, Any], version: Version) -> None:
    """Replace the attributes of a group (made when there is none); one atomic write, the last step of a commit.

    Consolidated metadata of the group is dropped: it would hide what is new from its readers.
    """
    text = json.dumps(attributes, indent=2, allow_nan=False)
    if version == "0.5":
        document = {"zarr_format": 3, "node_type": "group", "attributes": json.loads(text)}
        put_blob(store, group_key(group, "zarr.json"), json.dumps(document, indent=2).encode())
        return
    put_blob(store, group_key(group, ".zgroup"), json.dumps({"zarr_format": 2}).encode())
    put_blob(store, group_key(group, ".zattrs"), text.encode())


def group_key(group: str, name: str) -> str:
    """The key of something in a group; the root's name is empty."""
    return f"{group}/{name}" if group else name
