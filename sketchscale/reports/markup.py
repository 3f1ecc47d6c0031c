"""HTML and SVG from nested calls, escaped by construction.

Text becomes `Markup` only through `element` and `text`, which escape it, so an image or class name that contains tags
or quotes is shown, never run. No other module of this package writes angle brackets.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

__all__ = ["Markup", "element", "join", "text"]


class Markup(str):
    """A string that is already HTML."""

    __slots__ = ()


_VOID = frozenset({"img", "input", "meta", "br", "line", "rect", "path", "circle"})


def text(value: object) -> Markup:
    """Return escaped text; Markup is unchanged, None becomes empty.

    >>> text("<b>")
    '&lt;b&gt;'
    """
    if isinstance(value, Markup):
        return value
    return Markup("" if value is None else html.escape(str(value), quote=True))


def join(parts: Iterable[object]) -> Markup:
    """Return the concatenated parts, each escaped."""
    return Markup("".join(text(part) for part in parts))


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """Return an element. In attribute names a trailing underscore is removed and others become hyphens.

    Attributes that are None or False are left out, True ones have no value.

    >>> element("td", "a & b", class_="n")
    '<td class="n">a &amp; b</td>'
    """
    given = ((k.rstrip("_").replace("_", "-"), v) for k, v in attributes.items() if v not in (None, False))
    written = "".join(f" {key}" if value is True else f' {key}="{text(value)}"' for key, value in given)
    inner = join(children)
    if name in _VOID and not inner:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{inner}</{name}>")
