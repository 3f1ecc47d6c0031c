"""The gallery: what is on the page, escaped, bounded, the same bytes for the same data."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sketchscale.reports.confusion import confusion_chart, confusion_svg, confusion_text, recalls
from sketchscale.reports.gallery import BINS, GalleryClass, GalleryData, Thumbnail, render_gallery, thumbnail
from tests.reports.test_html import HOSTILE, Page


def shot(name: str = "label 1", probability: float | None = 0.9, heat: bool = False, note: str = "") -> Thumbnail:
    rng = np.random.default_rng(0)
    mask = np.zeros((20, 20), np.uint8)
    mask[5:15, 6:14] = 1
    return thumbnail(
        rng.random((2, 20, 20)).astype(np.float32),
        mask,
        color="#ff3366",
        probability=probability,
        name=name,
        note=note,
        heat=np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20) if heat else None,
    )


def gallery(name: str = "mature", heat: bool = False) -> GalleryData:
    bars = (0,) * (BINS - 1) + (3,)
    kinds = [
        GalleryClass(
            name=n, color=c, n=3, by_probability=bars, certain=(shot(n, heat=heat),), uncertain=(shot(probability=0.4),)
        )
        for n, c in ((name, "#ff3366"), ("young", "#4c9bf5"))
    ]
    empty = GalleryClass(name="none", color="#000000", n=0, by_probability=(0,) * BINS, certain=(), uncertain=())
    return GalleryData(
        title=name,
        images=2,
        classes=(*kinds, empty),
        disagreements=(shot(probability=None, note=name),),
        annotated=4,
        confusion=((name, "young"), ((3, 1), (0, 4))),
        facts={"classifier": name},
    )


def test_the_page_shows_classes_probabilities_and_disagreements() -> None:
    words = Page(render_gallery(gallery())).words
    for part in ("6 objects of 3 classes in 2 images", "Most certain", "Least certain", "0.900", "0.400", "label 1"):
        assert part in words
    assert "No object of this class." in words
    assert "You and the classifier differ" in words
    assert "7 of 8 annotated objects" in words


def test_names_are_shown_and_never_run() -> None:
    html = render_gallery(gallery(HOSTILE))
    page = Page(html)
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert HOSTILE in page.words


def test_the_page_is_one_file_and_the_same_data_gives_the_same_bytes() -> None:
    html = render_gallery(gallery(heat=True))
    assert not re.search(r"(src|href)=\"(?!data:)|url\((?!data:)|@import", html)
    assert html == render_gallery(gallery(heat=True))


def test_heat_maps_lie_beside_the_thumbnails_and_have_their_size() -> None:
    with_heat, without = render_gallery(gallery(heat=True)), render_gallery(gallery())
    assert with_heat.count("where the network looked") == 2
    assert "where the network looked" not in without
    one = shot(heat=True)
    assert one.heat is not None
    with Image.open(io.BytesIO(one.heat)) as image:
        assert image.size == (one.picture.width, one.picture.height) == (80, 80)
        warm = np.asarray(image.convert("RGB"), float)
    assert warm[-15:].mean() > 2 * warm[:15].mean()


def test_the_outline_has_the_colour_of_the_class() -> None:
    layer = shot().picture.layer
    assert layer is not None
    with Image.open(io.BytesIO(layer)) as image:
        pixels = np.asarray(image.convert("RGBA"))
    assert set(map(tuple, pixels[pixels[..., 3] > 0].tolist())) == {(255, 51, 102, 255)}


def test_a_thumbnail_is_small() -> None:
    large = np.random.default_rng(0).random((3, 200, 200)).astype(np.float32)
    one = thumbnail(large, large[0] > 0.5, color="#ff3366", probability=1.0, name="l")
    assert (one.picture.width, one.picture.height) == (120, 120)
    assert len(base64.b64encode(one.picture.image)) < 20_000


def test_a_gallery_without_objects_and_score_is_still_a_page() -> None:
    data = replace(gallery(), classes=(), disagreements=(), confusion=None, facts={}, annotated=0)
    assert "0 objects of 0 classes" in Page(render_gallery(data)).words


@pytest.mark.parametrize(("matrix", "shares"), [([[3, 1], [0, 4]], [0.75, 1.0]), ([[0, 0], [2, 2]], [None, 0.5])])
def test_the_confusion_matrix_says_the_same_in_every_form(matrix: list[list[int]], shares: list[float | None]) -> None:
    assert recalls(matrix) == shares
    chart, picture = confusion_chart(["a", "b"], matrix), confusion_svg(["a", "b"], matrix)
    text = confusion_text(["a", "b"], matrix)
    for shown in (chart, picture):
        assert f"{matrix[1][0]} annotated as b, found as a" in shown
    assert [int(v) for v in text.splitlines()[2].split()[1:3]] == matrix[1]
    assert picture.startswith("<svg")
    assert HOSTILE not in confusion_svg([HOSTILE, "b"], matrix)
