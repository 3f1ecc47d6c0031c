from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from sketchscale.errors import InputError
from sketchscale.reports.html import AccuracyRow, Note, ReportData, SeamCheck, Sizes, TrainingLog, render
from sketchscale.reports.pictures import make_picture
from sketchscale.reports.plate import CountRow

HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"
VOID = {"img", "input", "meta", "br"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def full_report(name: str = "nuclei") -> ReportData:
    labels = np.zeros((20, 30), np.int32)
    labels[3:9, 4:12], labels[11:18, 14:25] = 1, 2
    rgb = np.zeros((20, 30, 3), np.uint8)
    picture = make_picture(rgb, labels, class_of={1: 0, 2: 1}, width=60, title=name, caption=name)
    rows = tuple(
        CountRow(image=f"{name} {i}", well="B02", n=5 * i, by_class={name: 3 * i, "b": 2 * i}) for i in range(3)
    )
    return ReportData(
        title=name,
        rows=rows,
        wells=(CountRow(plate=name, well="B02", n=15, fields=3), CountRow(plate=name, well="B03", n=0, fields=0)),
        classes=(name, "b"),
        created="2026-01-02",
        thing=name,
        figures=(("0.9", name),),
        notes=(Note(level="failure", text=name),),
        sizes=Sizes(areas=(np.array([3.0, 9.0, 50.0]), np.array([4.0])), unit="µm²"),
        overviews=(picture, picture),
        crops=(picture,),
        seams=SeamCheck(passed=False, sentence=name, facts={name: name}),
        training=TrainingLog(loss=tuple((i, 3.0 / (i + 1)) for i in range(1000)), validation=((1, 2.0), (9, 0.0))),
        accuracy=(AccuracyRow(image=name, n_true=5, n_pred=6, ap={0.5: 0.9, 0.75: 0.6, 0.9: 0.2}, f1=0.94),),
        provenance={name: name},
        command=name,
        config=name,
    )


def test_a_full_report_is_well_formed_and_asks_for_nothing_outside() -> None:
    html = render(full_report())
    page = Page(html)
    sources = [value for name, value in page.attributes if name in ("src", "href", "action", "poster", "srcset")]
    assert len(sources) == 6
    assert all(value.startswith("data:image/") for value in sources)
    assert not re.search(r"https?://|url\(|@import|<link|<script|<iframe", html)
    assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in page.attributes


def test_hostile_names_are_shown_and_never_run() -> None:
    page = Page(render(full_report(HOSTILE)))
    assert "script" not in page.tags
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert page.tags.count("img") == 6
    assert page.words.count(HOSTILE) > 15


def test_every_number_a_reader_looks_for_is_on_the_page() -> None:
    words = Page(render(full_report())).words
    for part in (
        "15 nuclei of 2 classes, found in 3 images in 2 wells.",
        "Sum 9 6 15",
        "B03 0 0 0 0 0 nuclei 0 b Sum 0 0 15",
        "0.900 0.600 0.200",
    ):
        assert part in words
    assert "The seam audit failed" in words
    assert "60 %" in words


def test_a_report_of_nothing_says_so_without_empty_sections() -> None:
    page = Page(render(ReportData(title="empty", rows=(CountRow(image="a", n=0),))))
    assert "0 objects, found in 1 image." in page.words
    assert page.tags.count("section") == 1
    assert "svg" in page.tags


def test_the_same_data_gives_the_same_bytes() -> None:
    assert render(full_report()) == render(full_report())


def test_many_rows_are_folded_and_the_sum_is_of_all() -> None:
    rows = tuple(CountRow(image=f"i{i}", n=2) for i in range(100))
    page = Page(render(ReportData(title="t", rows=rows)))
    assert "details" in page.tags
    assert page.words.count("Sum 200") == 2


def test_the_pictures_on_the_page_are_the_ones_given() -> None:
    data = full_report()
    found = re.findall(r'src="data:image/webp;base64,([^"]+)"', render(data))
    assert base64.b64decode(found[0]) == data.overviews[0].image
    with Image.open(io.BytesIO(base64.b64decode(found[0]))) as image:
        assert image.size == (data.overviews[0].width, data.overviews[0].height)


def test_areas_must_belong_to_the_classes() -> None:
    with pytest.raises(InputError, match=r"areas of 1 classes; expected: 2"):
        ReportData(title="t", rows=(), classes=("a", "b"), sizes=Sizes(areas=(np.zeros(3),), unit="px²"))


@pytest.mark.parametrize("areas", [np.zeros(0), np.array([7.0]), np.full(300, 12.0), np.array([1e-3, 1e6])])
def test_size_histograms_count_every_object(areas: np.ndarray) -> None:
    html = render(ReportData(title="t", rows=(CountRow(n=len(areas)),), sizes=Sizes(areas=(areas,), unit="px²")))
    chart = html.partition("<h2>Sizes</h2>")[2].partition("</section>")[0]
    counted = re.findall(r"<title>[^<]*: ([\d,]+) objects</title>", chart)
    assert sum(int(n.replace(",", "")) for n in counted) == len(areas)
