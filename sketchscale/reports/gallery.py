"""A page of thumbnails: the most and least certain objects of each class, and disagreements with annotations.

    title ─ counts ─ certainty (histogram) ─ disagreements ─ one section per class ─ held-out score ─ provenance

Wrong thumbnails among the least certain objects are the ones to annotate next. The page is one file in the style of the
report; its size depends on the number of classes, not of objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sketchscale.reports.charts import histogram_chart, number
from sketchscale.reports.confusion import held_out_section
from sketchscale.reports.markup import Markup, element, join
from sketchscale.reports.page import (
    big_number,
    color_key,
    data_uri,
    document,
    dot,
    fact_list,
    page_footer,
    page_header,
    picture_figure,
    section,
)
from sketchscale.reports.pictures import Picture, make_picture, to_rgb, webp_file

__all__ = ["BINS", "GalleryClass", "GalleryData", "Thumbnail", "render_gallery", "thumbnail"]

BINS = 20
"""Bars of the histogram of probabilities, from 0 to 1."""

_WIDTH = 120
_HEAT = ((0, 0, 4), (65, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164))
"""From cold to hot: black, violet, red, yellow; also readable without colour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """One object: its window with its outline, and below it probability, name and a note.

    Attributes:
        heat: WebP bytes of the same size with the network's heat map, if any.
        probability: of the class of its section; None if the classifier has no such class.
    """

    picture: Picture
    heat: bytes | None = None
    probability: float | None
    name: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryClass:
    """One class: number of objects by probability (BINS counts), and the most and least certain ones."""

    name: str
    color: str
    n: int
    by_probability: tuple[int, ...]
    certain: tuple[Thumbnail, ...]
    uncertain: tuple[Thumbnail, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryData:
    """The content of the page, as plain values.

    Attributes:
        disagreements: annotated objects for which the classifier finds another class more probable.
        annotated: number of annotated objects in these images.
        confusion: classes of the classifier and held-out counts, if any.
    """

    title: str
    images: int
    classes: tuple[GalleryClass, ...]
    disagreements: tuple[Thumbnail, ...] = ()
    annotated: int = 0
    confusion: tuple[tuple[str, ...], tuple[tuple[int, ...], ...]] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Number of objects."""
        return sum(one.n for one in self.classes)


def thumbnail(
    pixels: npt.NDArray[np.float32],
    mask: npt.NDArray[Any],
    *,
    color: str,
    probability: float | None,
    name: str,
    note: str = "",
    ranges: Sequence[tuple[float, float]] | None = None,
    heat: npt.NDArray[np.float32] | None = None,
) -> Thumbnail:
    """Return a thumbnail of about 120 px.

    Args:
        pixels: (c, y, x). mask: (y, x), 0 outside the object. color: of its outline, "#rrggbb".
        ranges: (low, high) of each channel shown as black and full; (0, 1) if None.
        heat: (y, x) from 0 to 1, shown over a dim grey image.
    """
    rgb = to_rgb(pixels, ranges or [(0.0, 1.0)] * len(pixels))
    picture = make_picture(rgb, (mask > 0).astype(np.int32), class_of={1: 0}, width=_WIDTH, colors=(color,))
    warm = None
    if heat is not None:
        stops, size = np.array(_HEAT, np.float32), (picture.width, picture.height)
        at = np.clip(heat, 0, 1) * (len(stops) - 1)
        colors = np.stack([np.interp(at, np.arange(len(stops)), stops[:, c]) for c in range(3)], axis=-1)
        grey = rgb.astype(np.float32).mean(axis=-1, keepdims=True)
        blended = np.clip(0.75 * colors + 0.25 * grey, 0, 255).astype(np.uint8)
        warm = webp_file(Image.fromarray(blended).resize(size, Image.Resampling.BICUBIC), quality=80)
    return Thumbnail(picture=replace(picture, title=name), heat=warm, probability=probability, name=name, note=note)


def render_gallery(data: GalleryData) -> str:
    """Return the page as text, to be written as UTF-8; the same data gives the same bytes.

    >>> page = render_gallery(GalleryData(title="<plate>", images=1, classes=()))
    >>> "&lt;plate&gt;" in page, "http:" in page
    (True, False)
    """
    images = f"{number(data.images)} image{'s' if data.images != 1 else ''}"
    lead = f"{number(data.total)} objects of {len(data.classes)} classes in {images}."
    aside = "Annotated objects that the classifier takes for something else; your word counts"
    return document(
        data.title,
        page_header("sketchscale gallery", data.title, lead),
        _numbers(data),
        _certainty(data),
        section("You and the classifier differ", aside, _thumbnails(data.disagreements)) if data.disagreements else "",
        *(_class_section(one, data.total) for one in data.classes),
        held_out_section(data.confusion),
        section("Provenance", "What it takes to make this again", fact_list(data.facts)) if data.facts else "",
        page_footer(data.facts),
    )


def _numbers(data: GalleryData) -> Markup:
    shown = []
    for one in data.classes[:6]:
        share = element("small", f" {100 * one.n / data.total:.0f} %") if data.total else ""
        shown.append(big_number(join([number(one.n), share]), join([dot(one.color), one.name])))
    if data.annotated:
        shown.append(big_number(number(data.annotated), "annotated by you"))
    return element("div", *shown, class_="figures")


def _certainty(data: GalleryData) -> Markup:
    if not data.total:
        return Markup("")
    names, colors = [one.name for one in data.classes], [one.color for one in data.classes]
    edges, counts = [i / BINS for i in range(BINS + 1)], [one.by_probability for one in data.classes]
    title = "probability of the object's class"
    chart = histogram_chart(edges, counts, names, title=title, median=None, colors=colors)
    return section("Certainty", "Objects by the probability of their class", chart, color_key(names, colors))


def _class_section(one: GalleryClass, total: int) -> Markup:
    share = f" ({100 * one.n / total:.0f} %)" if total else ""
    parts: list[object] = [element("p", "No object of this class.", class_="none")] if not one.n else []
    if one.certain:
        parts += [element("h3", "Most certain"), _thumbnails(one.certain)]
    if one.uncertain:
        parts += [element("h3", "Least certain"), _thumbnails(one.uncertain)]
    title = join([element("span", dot(one.color), class_="mark"), one.name])
    return section(title, f"{number(one.n)} object{'s' if one.n != 1 else ''}{share}", *parts)


def _thumbnails(shown: Sequence[Thumbnail]) -> Markup:
    items = []
    for one in shown:
        views = [picture_figure(replace(one.picture, title="", caption=""))]
        if one.heat is not None:
            size = {"width": one.picture.width, "height": one.picture.height}
            hot = element("img", src=data_uri(one.heat, "image/webp"), alt="where the network looked", **size)
            views.append(element("figure", element("div", hot, class_="frame")))
        sure = "–" if one.probability is None else f"{one.probability:.3f}"
        words = [element("b", sure), element("span", one.name)]
        words += [element("span", one.note, class_="note")] if one.note else []
        frame = element("div", *views, class_="views")
        items.append(element("div", frame, element("p", *words), class_="thumb", title=one.name))
    wide = any(one.heat is not None for one in shown)
    return element("div", *items, class_="thumbs pairs" if wide else "thumbs")
