"""A page on which a person assigns classes to objects: pictures, buttons, keys, and a CSV file at the end.

The file contains everything: style, script, pictures (data URIs) and the rows of the table that it fills in. It needs
no network, which a content security policy enforces; the policy also names the single allowed script by its SHA-256.
Every text enters the page through `markup` or as JSON with `<` escaped, so a class or an image named like a tag is
shown, never run.

Answers are kept in the browser under the digest of the proposals: a page that is closed and opened again continues, and
a page with other proposals starts from the beginning. The CSV has the judged rows, in the order of the proposals.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from sketchscale.errors import InputError
from sketchscale.reports.markup import Markup, element
from sketchscale.reports.page import data_uri, head, packaged, whole_page
from sketchscale.reports.pictures import PALETTE, Picture, png_file

__all__ = ["JudgeClass", "JudgeItem", "JudgePage", "outlined", "page_digest", "render_judge"]

_KEYS = (
    "Keys: 1 to 9 give a class, 0 unsure, - not an object; u or r take back; arrows, Home and End move; "
    "o outline, a new class, s save."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeClass:
    """A class with its colour, "#rrggbb"."""

    name: str
    color: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeItem:
    """One object to be judged.

    Attributes:
        row: values of the CSV file, in the order of its columns; the person fills in `class`.
        picture: the object and its surroundings, with its outline as the layer.
        caption: place of the object; on a blind page without the predicted class.
    """

    row: tuple[str, ...]
    picture: Picture
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgePage:
    """The content of the page.

    Attributes:
        columns: of the CSV file; `class` is one of them.
        classes: in the order of their keys; a person can add others.
        note: one sentence below the title.
        file: name of the CSV file.
    """

    title: str
    columns: tuple[str, ...]
    items: tuple[JudgeItem, ...]
    classes: tuple[JudgeClass, ...] = ()
    note: str = ""
    file: str = "judged.csv"

    def __post_init__(self) -> None:
        if not self.items or "class" not in self.columns:
            raise InputError.of(
                found=f"{len(self.items)} objects, columns {', '.join(self.columns)}",
                expected="an object to judge, and a column class",
                fix="propose some",
            )
        if any(len(item.row) != len(self.columns) for item in self.items):
            raise InputError("rows and columns differ in number; expected: one value per column")


def outlined(picture: Picture, color: str = "#00d5ff") -> Picture:
    """Return a picture with its outline in a colour that no class has."""
    if picture.layer is None:
        return picture
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    with Image.open(io.BytesIO(picture.layer)) as layer:
        pixels = np.array(layer.convert("RGBA"))
    pixels[pixels[..., 3] > 0, :3] = rgb
    return replace(picture, layer=png_file(Image.fromarray(pixels).quantize(2)))


def page_digest(page: JudgePage) -> str:
    """Return a digest that identifies the proposals, independent of pictures and classes."""
    text = json.dumps([page.columns, [item.row for item in page.items]])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def render_judge(page: JudgePage) -> str:
    """Return the page as text, to be written as UTF-8.

    >>> item = JudgeItem(row=("7", ""), picture=Picture(image=b"", layer=None, width=1, height=1), caption="<b>")
    >>> html = render_judge(JudgePage(title="<nuclei>", columns=("label", "class"), items=(item,)))
    >>> "&lt;nuclei&gt;" in html, "<b>" in html, "http:" in html
    (True, False, False)
    """
    script = packaged("judge.js")
    live = element("p", id="live", class_="hidden", aria_live="polite")
    desk = element("div", _seen(len(page.items)), element("div", *_choices(), *_tools(), live), class_="desk")
    body = element(
        "body",
        element("main", _top(page), desk, element("div", id="strip", aria_label="All objects"), class_="judge"),
        element("script", _data(page), id="data", type="application/json"),
        element("script", Markup(script)),
    )
    return whole_page(head(page.title, sheets=("report.css", "judge.css"), script=script), body)


def _data(page: JudgePage) -> Markup:
    """Return the page's data as JSON that cannot end its element."""
    items = []
    for item in page.items:
        image, layer = item.picture.image, item.picture.layer
        outline = "" if layer is None else data_uri(layer, "image/png")
        items.append({"image": data_uri(image, "image/webp"), "layer": outline, "caption": item.caption})
    data = {
        "digest": page_digest(page),
        "columns": page.columns,
        "rows": [item.row for item in page.items],
        "items": items,
        "classes": [{"name": one.name, "color": one.color} for one in page.classes],
        "palette": PALETTE,
        "file": page.file,
    }
    return Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e"))


def _top(page: JudgePage) -> Markup:
    n = len(page.items)
    count = element("p", element("b", "0", id="done"), f" of {n} judged", class_="count")
    title = element("div", element("p", "sketchscale · what is it?", class_="kicker"), element("h1", page.title))
    note = element("p", page.note, class_="lead") if page.note else ""
    bar = element("progress", id="bar", max=n, value=0, aria_label="Judged")
    return element("header", element("div", title, count, class_="top"), note, bar)


def _seen(n: int) -> Markup:
    images = element("img", id="picture", alt=""), element("img", id="outline", alt="", class_="layer")
    frame = element("div", *images, class_="frame")
    number = element("span", "Object ", element("span", "1", id="number"), f" of {n} · ", element("span", id="place"))
    return element("figure", frame, element("figcaption", number, element("b", id="given")), class_="seen")


def _choices() -> Sequence[Markup]:
    """Return the places of the class buttons, which the script makes because classes can be added."""
    label = "Name of a new class"
    name = element("input", id="name", type="text", placeholder="new class", aria_label=label, maxlength=60)
    submit = element("button", "Add", type="submit")
    add = element("form", name, submit, element("kbd", "a"), id="add", autocomplete="off")
    return (
        element("p", "No class yet: press a, type a name, Enter.", id="no-classes", hidden=True),
        element("div", id="classes", class_="choices"),
        add,
        element("p", "Empty, there already, or a word with a meaning here.", id="wrong", hidden=True),
        element("div", id="others", class_="choices"),
    )


def _tools() -> Sequence[Markup]:
    box = element("input", id="outlined", type="checkbox", checked=True)
    named = (("previous", "Back", "←"), ("undo", "Undo", "u"), ("next", "Next", "→"), ("save", "Save CSV", "s"))
    buttons = (
        element("button", title, " ", element("kbd", shortcut), id=name, type="button")
        for name, title, shortcut in named
    )
    return (
        element("div", *buttons, class_="tools"),
        element("label", box, "Outline ", element("kbd", "o"), class_="switch"),
        element("p", "All are judged: save the CSV.", id="finished", hidden=True),
        element("p", id="stored"),
        element("p", _KEYS, class_="keys"),
    )
