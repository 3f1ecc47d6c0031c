"""The sample sheet shows maps, images and points where they are."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from sketchscale.annotations.hover_maps import maps_from_labels
from sketchscale.errors import InputError
from sketchscale.reports.pictures import outlines
from sketchscale.reports.synthesis import (
    Panel,
    SheetRow,
    draw_sheet,
    drawn_row,
    map_colors,
    map_rims,
    real_row,
)


def squares(side: int = 40) -> npt.NDArray[np.uint32]:
    """Two squares that touch in a column, one below, one alone."""
    labels = np.zeros((side, side), np.uint32)
    labels[4:15, 4:15], labels[4:15, 15:26], labels[15:26, 4:15], labels[30:37, 30:37] = 1, 2, 3, 4
    return labels


def pixels(data: bytes) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def test_rims_of_exact_maps_are_the_outlines_of_their_labels() -> None:
    labels = squares()
    np.testing.assert_array_equal(map_rims(maps_from_labels(labels)), outlines(labels))


def test_without_the_falls_of_h_and_v_objects_that_touch_would_be_one() -> None:
    maps = maps_from_labels(squares())
    maps[:2] = 0
    assert map_rims(maps).sum() < outlines(squares()).sum()


def test_colors_say_the_side_of_the_object() -> None:
    maps = maps_from_labels(squares())
    shown = map_colors(maps)
    assert shown[9, 9].tolist() == [255, 255, 255]
    assert shown[0, 0].tolist() == [0, 0, 0]
    right, left = shown[9, 14].astype(int), shown[9, 15].astype(int)
    assert right.tolist() == [255, 0, 0]
    assert left.tolist() == [0, 255, 255]


def test_an_unsure_m_is_darker() -> None:
    maps = np.zeros((3, 1, 2), np.float32)
    maps[2] = 1, 0.5
    assert map_colors(maps)[0].tolist() == [[255] * 3, [128] * 3]


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_rows_of_any_number_of_channels_have_four_panels(channels: int) -> None:
    maps = maps_from_labels(squares())
    image = np.full((channels, 40, 40), 0.5, np.float32)
    rows = [drawn_row(maps, image, maps), real_row(image, np.array([[9.0, 9.0]]), maps, image)]
    assert [panel.title for panel in rows[0].panels] == ["maps", "painted", "outlines", "read"]
    assert [panel.title for panel in rows[1].panels] == ["image", "points", "maps", "repainted"]
    sheet = pixels(draw_sheet(rows))
    assert sheet.shape == (2 * (80 + 8 + 32) + 8, 4 * (80 + 8) + 8, 3)


def test_outlines_lie_on_the_rims_and_leave_the_rest_as_it_is() -> None:
    maps, image = maps_from_labels(squares()), np.full((1, 40, 40), 0.5, np.float32)
    row = drawn_row(maps, image, maps)
    changed = (row.panels[2].rgb != row.panels[1].rgb).any(-1)
    np.testing.assert_array_equal(changed, outlines(squares()))


def test_points_are_drawn_at_their_pixels() -> None:
    panel = Panel(rgb=np.zeros((40, 40, 3), np.uint8), points=np.array([[10.0, 30.0]]))
    sheet = pixels(draw_sheet([SheetRow(panels=(panel,))]))
    at = np.argwhere((sheet == (0xFF, 0xD4, 0x3B)).all(-1))
    corner = np.array([8 + 32, 8])
    np.testing.assert_allclose(at.mean(0) - corner, (21, 61), atol=0.5)


def test_the_panel_stands_in_the_sheet_as_it_is() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (300, 20, 3), np.uint8)
    sheet = pixels(draw_sheet([SheetRow(panels=(Panel(rgb=rgb),), caption="größer als 256 px, not doubled")]))
    np.testing.assert_array_equal(sheet[40 : 40 + 300, 8 : 8 + 20], rgb)


def test_maps_that_are_no_numbers_are_drawn_black() -> None:
    assert not map_colors(np.full((3, 4, 4), np.nan, np.float32)).any()


@pytest.mark.parametrize("rows", [[], [SheetRow(panels=())]])
def test_a_sheet_without_panels_is_refused(rows: list[SheetRow]) -> None:
    with pytest.raises(InputError, match="at least one"):
        draw_sheet(rows)
