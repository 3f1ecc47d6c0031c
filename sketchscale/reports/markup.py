"""HTML and SVG from nested calls, escaped by construction.

Text becomes `Markup` only through `element` and `text`, which escape it; a name of an image or a class that contains
tags or quotes is shown, never run. Nothing else in this package writes angle brackets.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

__all__ = ["Markup", "element", "join", "text"]


class Markup(str):
    """A string that is HTML already."""

    __slots__ = ()


_VOID = frozenset({"img", "input", "meta", "br", "line", "rect", "path", "circle"})


def text(value: object) -> Markup:
    """Escaped; Markup stays as it is; None is nothing.

    >>> text("<b>")
    '&lt;b&gt;'
    """
    if isinstance(value, Markup):
        return value
    return Markup("" if value is None else html.escape(str(value), quote=True))


def join(parts: Iterable[object]) -> Markup:
    """One after the other, each escaped."""
    return Markup("".join(text(part) for part in parts))


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """An element; attribute names lose a trailing underscore and turn other underscores into hyphens.

    Attributes that are None or False are left out, True ones have no value.

    >>> element("td", "a & b", class_="n")
    '<td class="n">a &amp; b</td>'
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items() if value not in (None, False))
    inner = join(children)
    if name in _VOID and not inner:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{inner}</{name}>")


def _attribute(key: str, value: object) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{text(value)}"'
