"""Sketches as files: what comes in, goes out, is simulated, shown and repaired."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sketchscale.annotations.events import Stroke, append_events
from sketchscale.annotations.opening import SketchReading
from sketchscale.annotations.sketch import open_sketch
from sketchscale.cli import run
from sketchscale.errors import InputError, MissingDataError, OutputExistsError, UnknownNameError
from sketchscale.workflow.sketches import (
    export_sketch,
    import_sketch,
    repair_sketch,
    show_sketch,
    simulate_sketch,
)
from tests.pipeline import draw_nuclei, store_image

SHAPE = (40, 60)
EVERY = SketchReading(kind="labels")


@pytest.fixture
def truth(tmp_path: Path) -> str:
    """Two squares."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[5:15, 5:15], labels[20:32, 30:44] = 1, 2
    path = tmp_path / "truth.png"
    Image.fromarray(labels).save(path)
    return str(path)


@pytest.fixture
def image(tmp_path: Path) -> str:
    return store_image(tmp_path / "image.zarr", draw_nuclei(SHAPE))


def polygon(name: str) -> dict[str, object]:
    ring = [[2, 3], [12, 3], [12, 9], [2, 9], [2, 3]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"classification": {"name": name}},
    }


def test_a_label_image_is_imported_shown_and_exported(truth: str, image: str, tmp_path: Path) -> None:
    sketch = str(tmp_path / "s.jsonl")
    assert "2 objects" in import_sketch(truth, sketch, image=image, reading=EVERY)
    summary = show_sketch(sketch, image=image, out=str(tmp_path / "s.png"))
    assert summary["pixels"] == {"background": 40 * 60 - 268, "foreground": 268, "boundary": 0}
    assert summary["has_boundary_information"]
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.size[0] * 40 == picture.size[1] * 60
    export_sketch(sketch, str(tmp_path / "s.geojson"))
    import_sketch(str(tmp_path / "s.geojson"), str(tmp_path / "again.jsonl"), image=image)
    assert show_sketch(str(tmp_path / "again.jsonl"), image=image)["pixels"] == summary["pixels"]


def test_objects_alone_leave_the_rest_unknown(truth: str, tmp_path: Path) -> None:
    import_sketch(truth, str(tmp_path / "s.jsonl"), reading=SketchReading(kind="objects"))
    pixels = show_sketch(str(tmp_path / "s.jsonl"))["pixels"]
    assert pixels["background"] == 0
    assert pixels["foreground"] == 268
    assert pixels["boundary"] == 40 + 52


def test_sketchpose_files_are_found_from_the_label_file(tmp_path: Path) -> None:
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[2:8, 2:8], drawn[20:26, 20:30] = 1, 2
    boundary = np.zeros(SHAPE, np.uint8)
    boundary[19, 20:30] = 255
    Image.fromarray(drawn).save(tmp_path / "a_labels.png")
    Image.fromarray(boundary).save(tmp_path / "a_boundaries.png")
    import_sketch(str(tmp_path / "a_labels.png"), str(tmp_path / "s.jsonl"), reading=SketchReading(kind="sketchpose"))
    pixels = show_sketch(str(tmp_path / "s.jsonl"))["pixels"]
    assert pixels == {"background": 36, "foreground": 60, "boundary": 10}


def test_a_class_of_geojson_means_what_the_user_says(image: str, tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [polygon("Tumor")]}))
    out = str(tmp_path / "s.jsonl")
    with pytest.raises(UnknownNameError, match="--class NAME=CLASS"):
        import_sketch(str(path), out, image=image)
    assert not Path(out).exists()
    import_sketch(str(path), out, image=image, reading=SketchReading(classes={"Tumor": "foreground"}))
    assert show_sketch(out, image=image)["pixels"]["foreground"] == 60


def test_a_class_that_is_none_of_ours_is_refused() -> None:
    with pytest.raises(InputError, match="foreground"):
        SketchReading(classes={"Tumor": "cell"})


def test_a_torn_last_line_is_named_and_repaired(truth: str, tmp_path: Path) -> None:
    sketch = tmp_path / "s.jsonl"
    import_sketch(truth, str(sketch))
    whole = sketch.read_bytes()
    sketch.write_bytes(whole + b'{"event":"str')
    with pytest.raises(InputError, match="--repair"):
        show_sketch(str(sketch))
    assert "torn" in repair_sketch(str(sketch))
    assert sketch.read_bytes() == whole
    assert "nothing to repair" in repair_sketch(str(sketch))
    with pytest.raises(MissingDataError):
        repair_sketch(str(tmp_path / "none.jsonl"))


@pytest.mark.parametrize("style", ["fill", "half", "scribble", "gp"])
def test_simulated_sketches_say_only_what_is_true(truth: str, tmp_path: Path, style: str) -> None:
    out = str(tmp_path / "s.jsonl")
    simulate_sketch(truth, out, style=style, n_objects=2, percent=30, seed=1)
    raster = open_sketch(out, shape=SHAPE).rasterize()
    labels = np.asarray(Image.open(truth))
    assert (raster.labels > 0).any()
    assert (labels[raster.labels > 0] > 0).all()
    assert (labels[raster.labels == 0] == 0).all()


def test_files_that_are_there_are_kept_unless_overwritten(truth: str, tmp_path: Path) -> None:
    out = str(tmp_path / "s.jsonl")
    import_sketch(truth, out)
    before = Path(out).read_bytes()
    for again in (
        lambda: import_sketch(truth, out),
        lambda: simulate_sketch(truth, out),
        lambda: export_sketch(out, out),
        lambda: show_sketch(out, out=truth),
    ):
        with pytest.raises(OutputExistsError, match="--overwrite"):
            again()
    assert Path(out).read_bytes() == before
    simulate_sketch(truth, out, overwrite=True)
    assert Path(out).read_bytes() != before


def test_a_failed_import_keeps_the_sketch_it_was_to_replace(truth: str, tmp_path: Path) -> None:
    out = str(tmp_path / "s.jsonl")
    import_sketch(truth, out)
    before = Path(out).read_bytes()
    (tmp_path / "p.csv").write_text("y,x,class\n1,2,foreground\n")
    with pytest.raises(InputError, match="--image"):
        import_sketch(str(tmp_path / "p.csv"), out, overwrite=True)
    assert Path(out).read_bytes() == before
    assert not list(tmp_path.glob("*partial*"))


def test_a_painted_image_does_not_make_background_of_what_was_not_painted(truth: str, tmp_path: Path) -> None:
    line = import_sketch(truth, str(tmp_path / "s.jsonl"))
    unknown = 40 * 60 - 268 - 92
    assert f"2 objects, px: 0 background, 268 foreground, 92 boundary, {unknown} unknown; 0 means unknown" in line
    line = import_sketch(truth, str(tmp_path / "all.jsonl"), reading=EVERY)
    assert "px: 2132 background, 268 foreground, 0 boundary, 0 unknown; 0 means background" in line


@pytest.mark.parametrize("name", ["a.geojson", "a.png", "a.csv", "empty.geojson"])
def test_repair_leaves_every_file_alone_that_is_no_stroke_log(
    tmp_path: Path, truth: str, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(
        {
            "a.geojson": json.dumps({"type": "FeatureCollection", "features": [polygon("foreground")]}).encode(),
            "a.png": Path(truth).read_bytes(),
            "a.csv": b"y,x,class\n1,2,foreground",
            "empty.geojson": b"[]",
        }[name]
    )
    before = path.read_bytes()
    assert run(["sketch", "show", str(path), "--repair"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "expected: a stroke log" in line
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".torn"] == []


def test_figures_are_the_same_with_and_without_the_image(image: str, tmp_path: Path) -> None:
    """A thick brush at the last vertex counts whole; only what is wider than the image needs the image."""
    sketch = str(tmp_path / "s.jsonl")
    thick = Stroke(points=((12.0, 10.0), (20.0, 30.0)), radius_px=9, label="foreground", id="a")
    append_events(sketch, [thick, Stroke(points=((35.0, 50.0),), radius_px=4, label="background", id="b")])
    bare, placed = show_sketch(sketch), show_sketch(sketch, image=image)
    assert bare.pop("shape") is None
    assert placed.pop("shape") == SHAPE
    assert bare == placed


def test_whatever_is_read_directly_can_be_shown_and_exported(truth: str, image: str, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("y0,x0,y1,x1\n2,3,12,13\n")
    shown = show_sketch(str(boxes), image=image, out=str(tmp_path / "boxes.png"))
    assert (shown["kind"], shown["pixels"]["background"]) == ("boxes", 100)
    assert show_sketch(truth)["shape"] == SHAPE
    assert "features" in export_sketch(truth, str(tmp_path / "truth.geojson"))
    assert show_sketch(str(tmp_path / "truth.geojson"), image=image)["pixels"] == show_sketch(truth)["pixels"]


def test_objects_of_a_mask_are_simulated_one_by_one(truth: str, tmp_path: Path) -> None:
    mask = (np.asarray(Image.open(truth)) > 0).astype(np.uint8) * 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert "2 objects" in simulate_sketch(str(tmp_path / "mask.png"), str(tmp_path / "s.jsonl"), n_objects=2)
