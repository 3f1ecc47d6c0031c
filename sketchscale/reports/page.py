"""The parts that pages share: head with policy and style, sections, big numbers, pictures, facts.

Everything is inside the file: style and pictures (data URIs). No script, no font, no request; a content security policy
says so to the browser.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib.resources import files

from sketchscale.reports.markup import Markup, element
from sketchscale.reports.pictures import PALETTE, Picture

__all__ = [
    "big_number",
    "color_key",
    "data_uri",
    "document",
    "dot",
    "fact_list",
    "page_header",
    "picture_figure",
    "section",
]


def document(title: str, *content: object) -> str:
    """A whole page as text, to be written as UTF-8.

    >>> document("<b>", "text").count("&lt;b&gt;")
    1
    """
    body = element("body", element("main", *content))
    return "<!doctype html>\n" + element("html", _head(title), body, lang="en") + "\n"


def _head(title: str) -> Markup:
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    style = Markup(files("sketchscale.reports").joinpath("report.css").read_text("utf-8"))
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", style),
    )


def page_header(kicker: str, title: str, lead: str) -> Markup:
    """The first lines of a page: what it is, its name, one sentence."""
    return element(
        "header",
        element("p", kicker, class_="kicker"),
        element("h1", title),
        element("p", lead, class_="lead"),
    )


def section(title: object, aside: object, *content: object, class_: str = "") -> Markup:
    """A part of a page: its name and a remark on the left, its content beside them."""
    head = element("header", element("h2", title), element("p", aside) if aside else "")
    return element("section", head, element("div", *content), class_=class_ or None)


def big_number(value: object, label: object) -> Markup:
    """A number to be read first, and what it counts."""
    return element("div", element("b", value), element("span", label), class_="figure")


def dot(color: str) -> Markup:
    """A round mark of a class, "#rrggbb"."""
    return element("i", style=f"background:{color}")


def color_key(names: Sequence[str], colors: Sequence[str] = PALETTE) -> Markup:
    """Which colour is which class; nothing without classes."""
    items = [element("li", dot(colors[i % len(colors)]), name) for i, name in enumerate(names)]
    return element("ul", *items, class_="key") if names else Markup("")


def picture_figure(picture: Picture) -> Markup:
    """A picture with its layer above it, and title and caption below."""
    name = picture.title or picture.caption or "picture"
    size = {"width": picture.width, "height": picture.height}
    layers = [element("img", src=data_uri(picture.image, "image/webp"), alt=name, **size)]
    if picture.layer is not None:
        layers.append(element("img", src=data_uri(picture.layer, "image/png"), alt="", class_="layer", **size))
    title = element("b", picture.title, " ") if picture.title else ""
    caption = element("figcaption", title, picture.caption) if picture.title or picture.caption else ""
    return element("figure", element("div", *layers, class_="frame"), caption)


def data_uri(data: bytes, kind: str) -> str:
    """Bytes as an address, so that a page needs no other file.

    >>> data_uri(b"a", "text/plain")
    'data:text/plain;base64,YQ=='
    """
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def fact_list(facts: Mapping[str, str]) -> Markup:
    """Names and values in two columns; nothing without facts."""
    pairs = [part for name, value in facts.items() for part in (element("dt", name), element("dd", value))]
    return element("dl", *pairs) if pairs else Markup("")
