"""One self-contained HTML page per run.

    title, sentence ─ notes (the most important remarks) ─ big numbers
    plate ─ counts ─ sizes ─ pictures ─ accuracy ─ seams ─ training ─ provenance

Everything is inside the file: style, charts (SVG), pictures (data URIs). A content security policy forbids scripts,
fonts and requests; every text goes through `markup`, which escapes it. The same data gives the same bytes. Sections
without data are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError
from sketchscale.reports.charts import Series, histogram_chart, line_chart, number, ticks
from sketchscale.reports.confusion import held_out_section
from sketchscale.reports.counts import image_section, plate_section
from sketchscale.reports.markup import Markup, element, join
from sketchscale.reports.page import (
    big_number,
    color_key,
    document,
    dot,
    fact_list,
    page_footer,
    page_header,
    picture_figure,
    section,
    table,
)
from sketchscale.reports.pictures import Picture, color_of
from sketchscale.reports.plate import CountRow
from sketchscale.reports.strokes import StrokeRow, stroke_table

__all__ = ["AccuracyRow", "Note", "ReportData", "SeamCheck", "Sizes", "TrainingLog", "render"]

_BINS, _FEW_NAMES = 36, 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A quality remark shown above everything else."""

    level: Literal["info", "warning", "failure"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Areas (or `what`) of all objects: one array per class, in the order of the classes (one without classes)."""

    areas: tuple[npt.NDArray[np.floating[Any]], ...]
    unit: str
    what: str = "area"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeamCheck:
    """Result of the seam audit, one sentence about it, and its figures by name."""

    passed: bool
    sentence: str
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingLog:
    """Loss by step, in training and (if any) in validation; facts such as steps and time; strokes by image."""

    loss: tuple[tuple[float, float], ...]
    validation: tuple[tuple[float, float], ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    strokes: tuple[StrokeRow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyRow:
    """Accuracy against true labels: `ap` by IoU threshold, such as {0.5: 0.91}."""

    image: str
    n_true: int
    n_pred: int
    ap: Mapping[float, float]
    f1: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """The content of a report, as plain values.

    Attributes:
        title: of the run. lead: one sentence below it; made from the counts if empty. created: date and time.
        thing: plural name of the objects, such as "nuclei".
        rows: one per image (see `reports.plate`). wells: one per well of a plate.
        classes: in the order of their colours; empty if objects are not classified.
        figures: further big numbers, (value, label).
        notes: the most important remarks, the worst first.
        sizes, seams, training, accuracy: None or empty leaves the section out.
        confusion: classes of the classifier, and counts of held-out objects by true and predicted class.
        overviews: whole images; the first is shown large (make it 1400 px wide), the others half as wide (700 px).
        crops: enlarged square details (480 px).
        not_shown: names of images without a picture.
        provenance: versions, hashes, device, by name. command: as typed. config: the resolved configuration, as text.
    """

    title: str
    rows: tuple[CountRow, ...]
    created: str = ""
    lead: str = ""
    thing: str = "objects"
    wells: tuple[CountRow, ...] = ()
    classes: tuple[str, ...] = ()
    figures: tuple[tuple[str, str], ...] = ()
    notes: tuple[Note, ...] = ()
    sizes: Sizes | None = None
    confusion: tuple[tuple[str, ...], tuple[tuple[int, ...], ...]] | None = None
    overviews: tuple[Picture, ...] = ()
    crops: tuple[Picture, ...] = ()
    not_shown: tuple[str, ...] = ()
    seams: SeamCheck | None = None
    training: TrainingLog | None = None
    accuracy: tuple[AccuracyRow, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    config: str = ""

    def __post_init__(self) -> None:
        if self.sizes is not None and len(self.sizes.areas) != max(1, len(self.classes)):
            raise InputError.of(
                found=f"areas of {len(self.sizes.areas)} classes",
                expected=f"{max(1, len(self.classes))}, as many as classes",
                fix="give one array per class",
            )

    @property
    def total(self) -> int:
        """Number of objects."""
        return sum(row.n for row in self.rows)


def render(data: ReportData) -> str:
    """Return the page as text, to be written as UTF-8.

    >>> page = render(ReportData(title="<plate>", rows=(CountRow(n=3, image="a"),)))
    >>> "&lt;plate&gt;" in page, "http:" in page
    (True, False)
    """
    sections = [
        plate_section(data.wells, data.classes, data.thing),
        image_section(data.rows, data.classes, data.thing),
        _sizes(data),
        held_out_section(data.confusion),
        _pictures(data),
        _accuracy(data.accuracy),
        _seams(data.seams, data.total),
        _training(data.training),
        _provenance(data),
    ]
    shown = (_head(data), _notes(data.notes), _figures(data), *sections)
    return document(data.title, *shown, page_footer(data.provenance))


def _head(data: ReportData) -> Markup:
    kicker = " · ".join(part for part in ("sketchscale report", data.created) if part)
    where = f"{number(len(data.rows))} image{'s' if len(data.rows) != 1 else ''}"
    if data.wells:
        where += f" in {number(len(data.wells))} well{'s' if len(data.wells) != 1 else ''}"
    kinds = f" of {len(data.classes)} classes" if len(data.classes) > 1 else ""
    lead = data.lead or f"{number(data.total)} {data.thing}{kinds}, found in {where}."
    return page_header(kicker, data.title, lead)


def _notes(notes: Sequence[Note]) -> Markup:
    if not notes:
        return Markup("")
    names = {"info": "Note", "warning": "Check", "failure": "Failed"}
    items = [element("li", element("b", names[n.level]), n.text, class_=n.level) for n in notes]
    return element("ul", *items, class_="notes")


def _figures(data: ReportData) -> Markup:
    shown = [big_number(number(data.total), data.thing)]
    for place, name in enumerate(data.classes[:4]):
        n = sum(row.by_class.get(name, 0) for row in data.rows)
        share = element("small", f" {100 * n / data.total:.0f} %") if data.total else ""
        shown.append(big_number(join([number(n), share]), join([dot(color_of(place)), name])))
    shown += [big_number(value, label) for value, label in data.figures]
    return element("div", *shown, class_="figures")


def _sizes(data: ReportData) -> Markup:
    if data.sizes is None or not any(a.size for a in data.sizes.areas):
        return Markup("")
    together = np.concatenate([np.asarray(a, np.float64) for a in data.sizes.areas])
    # One very large object would compress all others into a few bars.
    top = float(min(together.max(), 1.3 * np.quantile(together, 0.97)))
    step = ticks(0, max(top, 1e-9), _BINS)[1]
    edges = np.arange(np.ceil(top / step) + 1) * step
    counts = [np.histogram(np.minimum(a, edges[-1]), edges)[0].tolist() for a in data.sizes.areas]
    chart = histogram_chart(
        edges.tolist(),
        counts,
        data.classes or (data.thing,),
        title=f"{data.sizes.what}, {data.sizes.unit}",
        median=float(np.median(together)),
    )
    beyond = int((together > edges[-1]).sum())
    aside = f"{data.sizes.what.capitalize()} of each object"
    aside += f"; the {number(beyond)} largest are in the last bar" if beyond else ""
    return section("Sizes", aside, chart, color_key(data.classes))


def _pictures(data: ReportData) -> Markup:
    if not (data.overviews or data.crops):
        return Markup("")
    has_layers = any(p.layer for p in (*data.overviews, *data.crops))
    box = element("input", type="checkbox", checked=True)
    switch = element("label", box, "Outlines", class_="switch") if has_layers else ""
    large = join(map(picture_figure, data.overviews[:1]))
    others = element("div", *map(picture_figure, data.overviews[1:]), class_="others") if data.overviews[1:] else ""
    crops = element("div", *map(picture_figure, data.crops), class_="crops") if data.crops else ""
    key, rest, names = color_key(data.classes), Markup(""), ", ".join(data.not_shown)
    summary = f"{number(len(data.not_shown))} of {number(len(data.rows))} images have no picture here"
    if len(data.not_shown) > _FEW_NAMES:
        rest = element("details", element("summary", summary), element("p", names))
    elif data.not_shown:
        rest = element("p", f"{summary}: {names}.", class_="explained")
    return section(
        "Pictures", "Outlines lie inside their objects", switch, large, others, crops, rest, key, class_="pictures"
    )


def _accuracy(rows: Sequence[AccuracyRow]) -> Markup:
    if not rows:
        return Markup("")
    shared = sorted(set.intersection(*(set(row.ap) for row in rows)))
    shown = [t for t in (0.5, 0.75, 0.9) if t in shared]
    head = ["Image", "True", "Found", *(f"AP {t:g}" for t in shown), "F1 0.5"]
    body = []
    for row in rows:
        values = [number(row.n_true), number(row.n_pred), *(f"{row.ap[t]:.3f}" for t in shown)]
        values.append("–" if row.f1 is None else f"{row.f1:.3f}")
        body.append(element("tr", element("td", row.image), *(element("td", value) for value in values)))
    parts: list[object] = [table(head, body)]
    if len(shared) > 2:
        curve = tuple((t, sum(row.ap[t] for row in rows) / len(rows)) for t in shared)
        lines = (Series(name="AP, mean of images", points=curve),)
        label = "AP by IoU threshold"
        parts += [element("h3", "AP by IoU threshold, mean of images")]
        parts += [line_chart(lines, x_title="IoU threshold", label=label, y_range=(0.0, 1.0))]
    return section("Accuracy", "Against true labels. AP is TP / (TP + FP + FN) at an IoU threshold", *parts)


def _seams(seams: SeamCheck | None, objects: int) -> Markup:
    if seams is None:
        return Markup("")
    if seams.passed and not objects:
        return section("Seams", "", element("p", "No object was found that a seam could cut.", class_="explained"))
    verdict = "No object is cut at a seam" if seams.passed else "The seam audit failed"
    state = "verdict" if seams.passed else "verdict failure"
    return section(
        "Seams",
        "Windows over block borders, computed again as a whole and compared",
        element("p", element("i"), verdict, class_=state),
        element("p", seams.sentence, class_="explained"),
        fact_list(seams.facts),
    )


def _training(log: TrainingLog | None) -> Markup:
    if log is None or not log.loss:
        return Markup("")
    lines = [Series(name="training", points=_thinned(log.loss))]
    if log.validation:
        lines.append(Series(name="held out", points=_thinned(log.validation), color=1))
    chart = line_chart(lines, x_title="step", label="loss by step", logarithmic=True)
    key = color_key([line.name for line in lines]) if len(lines) > 1 else ""
    facts = join([element("h3", "This training"), fact_list(log.facts)]) if log.facts else ""
    strokes = stroke_table(log.strokes)
    return section("Training", "Loss on patches around the sketch, logarithmic", chart, key, strokes, facts)


def _thinned(points: Sequence[tuple[float, float]], n: int = 400) -> tuple[tuple[float, float], ...]:
    """Return at most n points, each the mean of consecutive ones."""
    if len(points) <= n:
        return tuple(points)
    groups = np.array_split(np.asarray(points, np.float64), n)
    return tuple((float(g[:, 0].mean()), float(g[:, 1].mean())) for g in groups)


def _provenance(data: ReportData) -> Markup:
    if not (data.provenance or data.command or data.config):
        return Markup("")
    command = element("pre", element("code", data.command)) if data.command else ""
    config = ""
    if data.config:
        config = element("details", element("summary", "Configuration"), element("pre", data.config))
    return section("Provenance", "What it takes to make this again", fact_list(data.provenance), command, config)
