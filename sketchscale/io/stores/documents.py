"""Parse the JSON documents of a store, with limits on size, depth and duplicate keys."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from sketchscale.errors import InputError

__all__ = ["bad_metadata", "one_line", "parse_group", "parse_json"]

METADATA_BYTES = 16 * 2**20
METADATA_DEPTH = 64


def bad_metadata(where: str, problem: str, expected: str = "valid OME-Zarr metadata") -> InputError:
    """Return the error of all functions that read metadata; `where` is the file or group."""
    return InputError.of(found=f"{where}: {problem}", expected=expected, fix="restore or rewrite the metadata")


def parse_json(data: bytes, where: str) -> dict[str, Any]:
    """Parse a metadata document (UTF-8); `where` names it in errors.

    Raises:
        InputError: not JSON, not an object, larger than 16 MiB, deeper than 64, or with a key twice in one object.

    >>> parse_json(b'{"a": 1}', "x.json")
    {'a': 1}
    """
    if len(data) > METADATA_BYTES:
        raise bad_metadata(where, f"{len(data) / 2**20:.0f} MiB of metadata", "at most 16 MiB")
    try:
        document = json.loads(data, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise bad_metadata(where, f"not readable as JSON ({one_line(error)})", "a JSON document") from error
    if not isinstance(document, dict):
        raise bad_metadata(where, f"a JSON {type(document).__name__}", "a JSON object")
    if _depth(document) > METADATA_DEPTH:
        raise bad_metadata(where, f"nested deeper than {METADATA_DEPTH}", "a flat document")
    return document


def parse_group(data: bytes, where: str) -> dict[str, Any] | None:
    """Return the attributes in a `zarr.json`; None if it does not describe a group."""
    document = parse_json(data, where)
    if document.get("zarr_format") != 3 or document.get("node_type") != "group":
        return None
    attributes = document.get("attributes") or {}
    if not isinstance(attributes, dict):
        raise InputError(f"{where}: attributes are not an object; to fix: restore it")
    return attributes


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key appears twice")
    return document


def _depth(document: object) -> int:
    level, depth = [document], 0
    while level and depth <= METADATA_DEPTH:
        depth += 1
        inner = [list(d.values()) if isinstance(d, dict) else d for d in level if isinstance(d, (dict, list))]
        level = [item for items in inner for item in items if isinstance(item, (dict, list))]
    return depth


def one_line(error: BaseException, limit: int = 200) -> str:
    """Return an error's message in one line, without links to documentation or the whole input."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        text = f"{place}: {first['msg']}" if place else str(first["msg"])
    else:
        text = str(error) or type(error).__name__
    return " ".join(text.split())[:limit]
