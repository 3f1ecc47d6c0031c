"""Describe the differences of two records in the line that a refused `--resume` shows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["differences"]

_LONGEST, _MOST = 48, 8
_ABSENT = object()
_CHECKSUM = re.compile("[0-9a-f]{32,}")


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return the keys that differ, each with both values.

    Args:
        old, new: plain JSON. A value that is the text of a JSON object or list is compared inside as well.

    Returns:
        Dotted keys in order, at most 8 of them; empty if nothing differs.

    >>> differences({"rule": '{"link": 2, "threshold": -2}'}, {"rule": '{"link": 2, "threshold": -1.5}'})
    'rule.threshold: -2 -> -1.5'
    >>> differences({"model": "a"}, {"model": "a", "device": "gpu"})
    'device: absent -> gpu'
    """
    found = list(_differing("", dict(old), dict(new)))
    rest = [f"{len(found) - _MOST} more"] if len(found) > _MOST else []
    return ", ".join([f"{key}: {_short(a, b)} -> {_short(b, a)}" for key, a, b in found[:_MOST]] + rest)


def _differing(key: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    old, new = _opened(old), _opened(new)
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            yield from _differing(f"{key}.{name}" if key else name, old.get(name, _ABSENT), new.get(name, _ABSENT))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from _differing(f"{key}.{place}", a, b)
    elif old is _ABSENT or new is _ABSENT or old != new:
        yield key, old, new


def _opened(value: Any) -> Any:
    """Parse a value that is the text of a JSON object or list; return any other unchanged."""
    if not isinstance(value, str) or value[:1] not in ("{", "["):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _short(value: Any, other: Any) -> str:
    """Return a value in one line; a long one starts shortly before its first difference from the other."""
    text, against = _text(value), _text(other)
    if _CHECKSUM.fullmatch(text):
        return f"{text[:12]}..."
    if len(text) <= _LONGEST:
        return text
    first = next(
        (i for i, (a, b) in enumerate(zip(text, against, strict=False)) if a != b), min(len(text), len(against))
    )
    start = max(0, min(first - 8, len(text) - _LONGEST)) if first > _LONGEST - 8 else 0
    cut = text[start : start + _LONGEST]
    return f"{'...' * (start > 0)}{cut}{'...' * (start + _LONGEST < len(text))}"


def _text(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
