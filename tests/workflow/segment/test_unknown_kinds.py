"""Images of a kind that the model does not know: one line on stderr, in the report and in Python; exact for any cut."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.io import imread

from sketchscale.cli import run
from sketchscale.config import Execution, SegmentOptions
from sketchscale.errors import UnknownKindWarning
from sketchscale.io.ome_zarr.groups import read_attributes
from sketchscale.networks.checkpoint import load_model, save_model
from sketchscale.networks.kind import Kind
from sketchscale.workflow.report.report import write_report
from sketchscale.workflow.segment.arrays import fields_of_array, segment_anything, segment_array
from sketchscale.workflow.segment.segment import segment
from sketchscale.workflow.segment.unknown_kinds import array_statistics, kind_warning
from tests.pipeline import draw_nuclei, store_image
from tests.workflow.finished import SERIAL, SHAPE, copy_of

ANY = Kind(brightness=((0.0, 1.0),), undecided=(0.0, 1.0), short_flow=(0.0, 1.0), images=1)
NONE = Kind(brightness=((1.0, 1.0),), undecided=(0.0, 0.0), short_flow=(0.0, 0.0), images=1)


def that_knows(model: str, folder: Path, kind: Kind) -> str:
    """The same weights, read so that random fields have some short flow and some undecided background, not all."""
    loaded = load_model(model)
    fields = fields_of_array(draw_nuclei(SHAPE)[None], loaded, SegmentOptions(model=model)).astype(np.float64)
    length = float(np.median(np.hypot(fields[0], fields[1])))
    outside = float(np.quantile(fields[2], 0.4)) - 0.5
    config = replace(loaded.config, kind=kind, flow_scale=2 * length, outside=outside)
    save_model(folder, loaded.network, config, loaded.provenance)
    return str(folder)


def noted(image: str) -> dict[str, Any]:
    found: dict[str, Any] = (read_attributes(image, "labels/nuclei") or {})["sketchscale"]
    return found


@pytest.mark.parametrize("options", [SegmentOptions(), SegmentOptions(rescale=1.5, threshold=-9.0)], ids=str)
def test_statistics_are_those_of_the_array_for_any_block_and_engine(
    tmp_path: Path, model: str, options: SegmentOptions
) -> None:
    options = replace(options, model=that_knows(model, tmp_path / "model", NONE))
    pixels = draw_nuclei(SHAPE, seed=4).astype(np.float32)
    loaded = load_model(options.model)
    expected = array_statistics(
        pixels[None], fields_of_array(pixels[None], loaded, options), loaded.config, options.rescale or 1.0
    )
    assert 0 < expected.undecided < 1
    assert 0 < expected.short_flow < 1
    assert expected.brightness == pytest.approx([_brightness(pixels)], abs=1e-4)
    for number, execution in enumerate((Execution(engine="serial", block=64), Execution(engine="threads", block=512))):
        address = store_image(tmp_path / f"{number}.zarr", pixels)
        assert segment(address, options, execution).warning.startswith(f"{address} is not like the images that model ")
        kind = noted(address)["kind"]
        assert (tuple(kind["brightness"]), kind["undecided"], kind["short_flow"]) == (
            expected.brightness, expected.undecided, expected.short_flow
        )  # fmt: skip


def _brightness(pixels: np.ndarray[Any, Any]) -> float:
    low, middle, high = np.percentile(pixels.astype(np.float64), (1, 50, 99.8))
    return float((middle - low) / (high - low))


def test_a_finished_run_and_its_report_say_it_again(tmp_path: Path, model: str, done: Path) -> None:
    options = SegmentOptions(model=that_knows(model, tmp_path / "model", NONE))
    address = str(copy_of(done, tmp_path))
    first = segment(address, options, replace(SERIAL, overwrite=True)).warning
    assert first == segment(address, options, replace(SERIAL, resume=True)).warning != ""
    assert "\n" not in first
    page = Path(write_report([address], "nuclei", str(tmp_path / "report.html"))).read_text("utf-8")
    assert "is not like the images that model model knows" in page


def test_the_command_says_it_in_one_line_on_stderr(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    known = that_knows(model, tmp_path / "model", NONE)
    address = store_image(tmp_path / "image.zarr", draw_nuclei(SHAPE))
    assert run(["segment", address, "--model", known, "--engine", "serial"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith(f"warning: {address} is not like")]) == 1
    assert len([line for line in lines if "not like" in line or "trusted" in line]) == 1


def test_an_image_in_memory_warns_in_python(tmp_path: Path, model: str) -> None:
    unknown = SegmentOptions(model=that_knows(model, tmp_path / "unknown", NONE))
    pixels = draw_nuclei((70, 70))
    with pytest.warns(UnknownKindWarning, match=r"the image is not like .*`sketchscale train IMAGE"):
        segment_array(pixels, unknown)
    with pytest.warns(UnknownKindWarning, match=r"stored\.zarr is not like"):
        segment_anything(store_image(tmp_path / "stored.zarr", pixels), unknown, Execution(engine="serial"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        segment_array(pixels, SegmentOptions(model=that_knows(model, tmp_path / "known", ANY)))
        segment_array(pixels, SegmentOptions(model=model))


def test_a_model_without_a_record_notes_nothing(tmp_path: Path, model: str) -> None:
    address = store_image(tmp_path / "image.zarr", draw_nuclei(SHAPE))
    assert segment(address, SegmentOptions(model=model), Execution(engine="serial")).warning == ""
    assert "kind" not in noted(address)


def test_where_no_object_was_found_nothing_is_said_of_the_kind() -> None:
    found = {"unknown": "the flow is short"}
    assert kind_warning("a", "m", found, objects=0) == kind_warning("a", "m", {}, objects=9) == ""
    assert "its 9 objects cannot be trusted" in kind_warning("a", "m", found, objects=9)


@pytest.mark.parametrize(
    ("name", "unknown"), [("fluorescence/images/fluorescence-1.png", False), ("histology/images/histology-1.png", True)]
)
def test_the_shipped_model_knows_fluorescence_and_not_stained_tissue(name: str, *, unknown: bool) -> None:
    path = Path(__file__).resolve().parents[3] / "sketchscale" / "samples" / name
    pixels = imread(path)[:128, :128]
    pixels = pixels if pixels.ndim == 2 else pixels.mean(axis=-1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        segment_array(pixels, SegmentOptions(model="nuclei-fluo", tile=128, overlap=32))
    assert [w.category for w in caught] == [UnknownKindWarning] * unknown


def test_the_shipped_model_warns_of_bright_field_and_phase_contrast(shared_data: Path) -> None:
    for name in ("dsb2018_brightfield", "usiigaci_phase"):
        path = sorted((shared_data / name / "images").iterdir())[0]
        with pytest.warns(UnknownKindWarning, match="nuclei-fluo knows"):
            segment_array(imread(path)[:128, :128], SegmentOptions(model="nuclei-fluo", tile=128, overlap=32))
