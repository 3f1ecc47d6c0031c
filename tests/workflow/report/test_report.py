"""A report says what it does not show, and why there is nothing where nothing was found."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import sketchscale
from sketchscale.cli import run
from sketchscale.config import Execution, SegmentOptions
from sketchscale.errors import MissingDataError, UnknownNameError
from sketchscale.geometry import whole
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.watershed.config import WatershedConfig
from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array, write_box
from sketchscale.io.ome_zarr.groups import write_attributes
from sketchscale.workflow.images import expand
from sketchscale.workflow.measure.measure import measure
from sketchscale.workflow.report.report import write_report
from sketchscale.workflow.segment.empty_results import empty_facts, why_empty
from sketchscale.workflow.segment.segment import segment
from tests.pipeline import draw_nuclei, make_model, store_image
from tests.workflow.classify.test_propose import stored
from tests.workflow.measure.test_count import plate

SERIAL = Execution(engine="serial", block=128)


def words_of(page: str) -> str:
    """The page's text without styles, tags and what charts say on hovering."""
    text = re.sub(r"<(style|title).*?</\1>", "", Path(page).read_text("utf-8"), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


def screen(folder: Path) -> str:
    """A plate with five fields in two wells, and one well without an image."""
    address = plate(folder)
    for field in (2, 3):
        stored(Path(address) / "A/1", str(field), 4, seed=field)
    images = [{"path": str(field)} for field in range(4)]
    write_attributes(f"{address}/A/1", "", {"ome": {"version": "0.5", "well": {"images": images}}}, "0.5")
    return address


def test_the_report_of_a_plate_names_what_it_does_not_show(tmp_path: Path) -> None:
    address = screen(tmp_path)
    words = words_of(write_report(expand([address]), "nuclei", str(tmp_path / "all.html")))
    assert "found in 5 images in 3 wells" in words
    assert "1 of 5 images have no picture here: A/1/3." in words
    assert "p.zarr: wells without an image: C02." in words
    assert "not in this report" not in words
    assert "Well Images long round All A01 4" in words
    assert re.search(r"A01 4 .* B11 1 .* C02 0 0 0 0 Sum ", words)
    part = [f"{address}/A/1/{field}" for field in range(3)]
    words = words_of(write_report(part, "nuclei", str(tmp_path / "part.html")))
    assert "p.zarr: not in this report: B/11/0, A/1/3." in words
    assert "have no picture" not in words


def test_a_field_that_was_not_measured_is_named_and_its_well_has_no_count(tmp_path: Path) -> None:
    address = screen(tmp_path)
    shutil.rmtree(f"{address}/A/1/2/tables")
    shutil.rmtree(f"{address}/B/11/0/labels")
    page = sketchscale.report(address, "nuclei", tmp_path / "page.html")
    words = words_of(page)
    assert "B/11/0, A/1/2: not segmented or not measured, so not counted." in words
    assert "found in 3 images in 3 wells" in words
    assert re.search(r"A01 3 \d+ \d+ (\d+) B11 0 0 0 0 C02 0 0 0 0 Sum \d+ \d+ \1", words)
    assert Path(page).read_text("utf-8").count('class="missing"') == 2
    with pytest.raises(MissingDataError, match="sketchscale measure"):
        sketchscale.report(f"{address}/A/1/2", "nuclei", tmp_path / "none.html")
    with pytest.raises(UnknownNameError, match="nucleii"):
        sketchscale.report(address, "nucleii", tmp_path / "none.html")


def test_nothing_found_is_said_with_its_reason_by_segment_and_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = store_image(tmp_path / "a.zarr", draw_nuclei((70, 90)))
    model = make_model(tmp_path / "model")
    (tmp_path / "model/provenance.json").write_text(json.dumps({"steps": 6}))
    options = ["--model", model, "--threshold", "50", "--engine", "serial"]
    assert run(["segment", image, *options]) == 0
    shown = capsys.readouterr()
    (line,) = [line for line in shown.err.splitlines() if "no object was found" in line]
    assert re.fullmatch(
        rf"{re.escape(image)}: no object was found: the largest predicted distance is \S+ px, and foreground is above "
        r"50 px \(--threshold\); the model was trained for 6 steps only",
        line,
    )
    assert "0 objects" in shown.out
    assert run(["segment", image, *options, "--resume"]) == 0
    assert line in capsys.readouterr().err
    measure(image, "nuclei", SERIAL)
    words = words_of(write_report([image], "nuclei", str(tmp_path / "a.html")))
    assert "a.zarr: no object was found: the largest predicted distance is" in words
    assert "6 steps only." in words
    assert "No object is cut at a seam" not in words
    assert "No object was found that a seam could cut." in words


def test_control_where_something_is_found_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = store_image(tmp_path / "a.zarr", draw_nuclei((70, 90)))
    result = segment(image, SegmentOptions(model=make_model(tmp_path / "model")), SERIAL)
    assert result.n > 0
    assert result.empty == {}


@pytest.mark.parametrize("shape", [(3, 5, 40), (4, 3, 5, 40)])
def test_the_largest_distance_is_that_of_all_blocks(tmp_path: Path, shape: tuple[int, ...]) -> None:
    fields = np.full(shape, -9, np.float16)
    fields[:-1] = 100  # flow does not count
    fields[-1].flat[-1] = -3.25
    ref = ArrayRef(store=str(tmp_path / "s.zarr"), path="fields")
    create_array(ref, shape=shape, chunks=(shape[0], *(2,) * (len(shape) - 2), 16), dtype="float16")
    write_box(ref, whole(shape), fields)
    assert empty_facts(ref, IntegrationConfig(threshold=-2.0), {})["largest"] == -3.25
    facts = empty_facts(ref, WatershedConfig(threshold=0.75), {"steps": 800})
    assert why_empty(facts).endswith("probability is -3.25, and foreground is above 0.75 (--threshold); "
                                     "the model was trained for 800 steps")  # fmt: skip


def test_foreground_that_was_not_kept_is_said_to_be_so() -> None:
    facts = {"threshold": -2.0, "min_size": 20, "probability": False, "largest": 1.5}
    assert (
        "above the threshold of -2 px, but no component was kept; objects have 20 px or more (--min-size)"
        in why_empty(facts)
    )
    del facts["largest"]
    assert why_empty(facts) == (
        "no object was found: foreground is where the predicted distance is above -2 px (--threshold)"
    )
