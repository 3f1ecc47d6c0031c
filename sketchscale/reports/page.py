"""The common parts of pages: head with policy and style, sections, big numbers, pictures, facts.

Everything is inside the file: style and pictures (data URIs). A content security policy forbids fonts, requests, and
scripts except for the one that a page may name.
"""

from __future__ import annotations

import base64
import hashlib
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
    "head",
    "packaged",
    "page_footer",
    "page_header",
    "picture_figure",
    "section",
    "table",
    "whole_page",
]


def document(title: str, *content: object) -> str:
    """Return a whole page as text, to be written as UTF-8.

    >>> document("<b>", "text").count("&lt;b&gt;")
    1
    """
    return whole_page(head(title), element("body", element("main", *content)))


def whole_page(top: Markup, body: Markup) -> str:
    """Return head and body as text."""
    return "<!doctype html>\n" + element("html", top, body, lang="en") + "\n"


def packaged(name: str) -> str:
    """Return the text of a style sheet or script of this package."""
    return files("sketchscale.reports").joinpath(name).read_text("utf-8")


def head(title: str, *, sheets: Sequence[str] = ("report.css",), script: str = "") -> Markup:
    """Return title, style, and the policy that forbids all requests.

    Args:
        sheets: names of style sheets of this package.
        script: text of the single script that may run, allowed by its SHA-256; empty for none.
    """
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup("".join(map(packaged, sheets)))),
    )


def page_header(kicker: str, title: str, lead: str) -> Markup:
    """Return the first lines of a page: kind, title, one sentence."""
    return element(
        "header", element("p", kicker, class_="kicker"), element("h1", title), element("p", lead, class_="lead")
    )


def page_footer(facts: Mapping[str, str]) -> Markup:
    """Return the last line of a page, with the version if it is among the facts."""
    made = f"Made by sketchscale {facts.get('sketchscale', '')}".strip()
    return element("footer", f"{made}. One file, nothing loaded.", class_="foot")


def table(head: Sequence[str], body: Sequence[Markup]) -> Markup:
    """Return a table of headings and finished rows."""
    top = element("thead", element("tr", *(element("th", name) for name in head)))
    return element("table", top, element("tbody", *body))


def section(title: object, aside: object, *content: object, class_: str = "") -> Markup:
    """Return a section of a page: name and remark on the left, content on the right."""
    head = element("header", element("h2", title), element("p", aside) if aside else "")
    return element("section", head, element("div", *content), class_=class_ or None)


def big_number(value: object, label: object) -> Markup:
    """Return a prominent number and its label."""
    return element("div", element("b", value), element("span", label), class_="figure")


def dot(color: str) -> Markup:
    """Return the round mark of a class, "#rrggbb"."""
    return element("i", style=f"background:{color}")


def color_key(names: Sequence[str], colors: Sequence[str] = PALETTE) -> Markup:
    """Return the legend of class colours; nothing without classes."""
    items = [element("li", dot(colors[i % len(colors)]), name) for i, name in enumerate(names)]
    return element("ul", *items, class_="key") if names else Markup("")


def picture_figure(picture: Picture) -> Markup:
    """Return a picture with its layer above it, and title and caption below."""
    name = picture.title or picture.caption or "picture"
    size = {"width": picture.width, "height": picture.height}
    layers = [element("img", src=data_uri(picture.image, "image/webp"), alt=name, **size)]
    if picture.layer is not None:
        layers.append(element("img", src=data_uri(picture.layer, "image/png"), alt="", class_="layer", **size))
    title = element("b", picture.title, " ") if picture.title else ""
    caption = element("figcaption", title, picture.caption) if picture.title or picture.caption else ""
    return element("figure", element("div", *layers, class_="frame"), caption)


def data_uri(data: bytes, kind: str) -> str:
    """Return bytes as an address, so that a page needs no other file.

    >>> data_uri(b"a", "text/plain")
    'data:text/plain;base64,YQ=='
    """
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def fact_list(facts: Mapping[str, str]) -> Markup:
    """Return names and values in two columns; nothing without facts."""
    pairs = [part for name, value in facts.items() for part in (element("dt", name), element("dd", value))]
    return element("dl", *pairs) if pairs else Markup("")
