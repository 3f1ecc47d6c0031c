"""Where to draw next over a study: exact on any engine, never where something is drawn, readable by other tools."""

from __future__ import annotations

import csv
import itertools
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sketchscale.annotations.events import LabelledBox, Stroke, append_events
from sketchscale.annotations.sketch import open_sketch
from sketchscale.cli import run
from sketchscale.config import Execution, SegmentOptions
from sketchscale.errors import InputError
from sketchscale.geometry import Box
from sketchscale.workflow.train.where_next import NextOptions, NextResult, Place, where_next
from tests.pipeline import draw_nuclei, store_image

SERIAL = Execution(engine="serial")
SHAPES = ((100, 170), (70, 130))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two images, which no test changes."""
    folder = tmp_path_factory.mktemp("study")
    return [store_image(folder / f"im{i}.zarr", draw_nuclei(shape, i)) for i, shape in enumerate(SHAPES)]


@pytest.fixture(scope="module")
def sketch(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A stroke and a labelled box on the first image."""
    path = tmp_path_factory.mktemp("sketch") / "s.jsonl"
    line = Stroke(points=((10, 10), (12, 40)), radius_px=2, label="foreground", id="a")
    append_events(path, [line, LabelledBox(start=(50, 96), stop=(60, 100), id="b")])
    return str(path)


def options(model: str, **more: Any) -> NextOptions:
    return NextOptions(segment=SegmentOptions(model=model), **{"n": 4, "size": 32, **more})


def without_names(result: NextResult) -> list[dict[str, Any]]:
    return [{k: v for k, v in asdict(place).items() if k != "image"} for place in result.places]


def test_workers_choose_the_same(study: list[str], model: str, sketch: str) -> None:
    chosen, several = options(model, sketches=(sketch,)), Execution(engine="threads", workers=3, block=64)
    assert where_next(study, chosen, several) == where_next(study, chosen, SERIAL)


def test_chunks_do_not_matter(tmp_path: Path, study: list[str], model: str) -> None:
    other = [store_image(tmp_path / f"o{i}.zarr", draw_nuclei(s, i), chunk=17) for i, s in enumerate(SHAPES)]
    assert without_names(where_next(other, options(model), SERIAL)) == without_names(
        where_next(study, options(model), SERIAL)
    )


def test_a_painted_image_counts_as_drawn(tmp_path: Path, study: list[str], model: str) -> None:
    painted = np.zeros(SHAPES[0], np.uint8)
    painted[5:30, 40:60] = 3
    np.save(tmp_path / "painted.npy", painted)
    objects = where_next(study, options(model, sketches=(str(tmp_path / "painted.npy"),)), SERIAL)
    assert objects.annotated == 1
    every = options(model, sketches=(str(tmp_path / "painted.npy"),), sketch_kind="labels")
    assert where_next(study, every, SERIAL).annotated == 15


def test_nothing_is_proposed_where_something_is_drawn(study: list[str], model: str, sketch: str) -> None:
    result = where_next(study, options(model, sketches=(sketch,), n=100), SERIAL)
    drawn = open_sketch(sketch, shape=SHAPES[0]).rasterize()
    said = (drawn.labels >= 0) | drawn.boundary
    for place in result.places:
        if place.image == study[0]:
            assert not said[place.box.slices].any(), place
    # 3 x 5 boxes on the first image (4 and 10 px are slivers), 2 x 4 on the second
    assert (result.boxes, result.annotated) == (23, 3)
    assert result.looked_at == len(result.places) == 20


def test_places_are_apart_ranked_and_inside_their_image(study: list[str], model: str) -> None:
    places = where_next(study, options(model, n=8), SERIAL).places
    assert [p.rank for p in places] == list(range(1, 9))
    assert all(a.score >= b.score for a, b in itertools.pairwise(places))
    for i, place in enumerate(places):
        shape = SHAPES[study.index(place.image)]
        assert place.box.clip(shape) == place.box
        assert all(place.box.intersect(p.box).size == 0 for p in places[:i] if p.image == place.image)


def test_a_strange_corner_comes_before_more_of_the_same(tmp_path: Path, model: str) -> None:
    pixels = draw_nuclei((128, 192), 4)
    pixels[96:128, 160:192] = np.indices((32, 32)).sum(0) % 2 * 250
    image = store_image(tmp_path / "i.zarr", pixels)
    append_events(tmp_path / "s.jsonl", [Stroke(points=((5, 5), (5, 60)), radius_px=1, label="background", id="a")])
    result = where_next([image], options(model, sketches=(str(tmp_path / "s.jsonl"),), n=22), SERIAL)
    (corner,) = [p for p in result.places if p.box == Box((96, 160), (128, 192))]
    assert corner.novelty == 1
    assert "unlike anything drawn" in corner.reason


def test_a_sample_bounds_the_work(study: list[str], model: str, sketch: str) -> None:
    tasks: list[int] = []
    result = where_next(
        study,
        options(model, sketches=(sketch,), sample=3),
        SERIAL,
        lambda event: tasks.append(event.total) if event.stage == "look" else None,
    )
    assert (result.looked_at, set(tasks)) == (6, {3 + 3 + 3})
    assert result.boxes == 23


def test_a_study_drawn_on_everywhere_has_no_place_left(tmp_path: Path, study: list[str], model: str) -> None:
    append_events(tmp_path / "all.jsonl", [LabelledBox(start=(0, 0), stop=SHAPES[0], id="a")])
    result = where_next(study[:1], options(model, sketches=(str(tmp_path / "all.jsonl"),)), SERIAL)
    assert (result.places, result.annotated) == ((), 15)


def test_an_image_smaller_than_a_box_is_one_box(study: list[str], model: str) -> None:
    result = where_next(study, options(model, size=512), SERIAL)
    assert {p.box for p in result.places} == {Box((0, 0), shape) for shape in SHAPES}


@pytest.mark.parametrize("ending", ["csv", "json", "geojson"])
def test_places_as_files(
    tmp_path: Path, study: list[str], model: str, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    out, picture = tmp_path / f"next.{ending}", tmp_path / "next.png"
    command = ["where-next", *study, "--model", model, "--size", "32", "--n", "6", "--engine", "serial", "--json"]
    assert run([*command, "--out", str(out), "--picture", str(picture)]) == 0
    printed = json.loads(capsys.readouterr().out)["places"]
    places = [Place(**p) for p in printed]
    with Image.open(picture) as sheet:
        assert sheet.size == (5 * 40 + 8, 2 * 56 + 8)
    if ending == "csv":
        with out.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [(r["image"], int(r["y0"]), int(r["x1"])) for r in rows] == [(p.image, p.y0, p.x1) for p in places]
    elif ending == "json":
        assert json.loads(out.read_text())["places"] == printed
    else:
        images = list(dict.fromkeys(p.image for p in places))
        for number, image in enumerate(images, 1):
            name = "next.geojson" if len(images) == 1 else f"next-{number}-{Path(image).stem}.geojson"
            features = json.loads((tmp_path / name).read_text())["features"]
            ring = features[0]["geometry"]["coordinates"][0]
            first = next(p for p in places if p.image == image)
            assert ring[0] == ring[-1] == [first.x0, first.y0]
            assert ring[2] == [first.x1, first.y1]
            assert len(features) == sum(p.image == image for p in places)


def test_people_read_a_table(study: list[str], model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["where-next", study[0], "--model", model, "--size", "32", "--n", "2", "--engine", "serial"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[-1] == "looked at 15 of 15 boxes without annotation; 0 have some"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "none"), "none"),
        (("--sketch", "absent.jsonl"), "absent.jsonl"),
        (("--sketch", "s.jsonl", "--sketch", "s.jsonl"), "2 sketches for 1 images"),
        (("--sketch", "far.jsonl"), "leaves"),
        (("--out", "next.txt"), ".geojson, .csv or .json"),
        (("--out", "old.csv"), "--overwrite"),
        (("--picture", "old.csv"), "--overwrite"),
        (("--channel", "dapi"), "unknown channel 'dapi'"),
        (("--z", "3"), "no z axis"),
        (("--device", "abacus"), "abacus"),
        (("--precision", "half"), "precision"),
        (("--memory", "0.001"), "declares"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    tmp_path: Path,
    study: list[str],
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    append_events("s.jsonl", [Stroke(points=((5, 5),), radius_px=1, label="background", id="a")])
    (tmp_path / "old.csv").write_text("mine")
    append_events("far.jsonl", [Stroke(points=((500, 5),), radius_px=1, label="background", id="a")])
    before = sorted(p.name for p in tmp_path.iterdir())
    chosen = () if "--model" in arguments else ("--model", model)
    code = run(["where-next", study[0], *chosen, "--size", "32", *arguments, "--engine", "serial"])
    out, err = capsys.readouterr()
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code in (2, 5)
    assert (out, len(errors)) == ("", 1), err
    assert words in errors[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_options_that_mean_nothing_here_are_refused(model: str) -> None:
    for bad in ({"n": 0}, {"size": 8}, {"sample": 0}):
        with pytest.raises(InputError, match=f"change --{next(iter(bad))}"):
            options(model, **bad)
    with pytest.raises(InputError, match="compares flips itself"):
        replace(options(model), segment=SegmentOptions(model=model, flips=4))
