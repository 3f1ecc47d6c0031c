"""README's blocks run as written, with the shipped samples standing in for a user's files."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

import sketchscale
from sketchscale.cli import run
from tests.object_store import ObjectServer

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
SAMPLES = ROOT / "sketchscale" / "samples" / "fluorescence"

LONGER = ["--steps", "40", "--width", "8", "--batch", "4", "--patch", "128"]
"""In place of the minutes, which do more on a machine that is not busy."""
QUICK = ["--steps", "2", "--batch", "2", "--patch", "64", "--init", "nuclei-fluo"]
"""Two steps of the shipped model, which finds nuclei all the same."""


def blocks(language: str) -> list[tuple[str, str]]:
    """(comment above, text) of README's blocks of one language."""
    return re.findall(rf"<!-- ([^>]*) -->\n```{language}\n(.*?)```", README, re.DOTALL)


def test_every_code_block_says_how_it_is_run() -> None:
    marked = len(blocks("bash")) + len(blocks("python"))
    assert marked == len(re.findall(r"^```(?:bash|python)$", README, re.MULTILINE)) == 8
    not_run_here = [comment for comment, _ in blocks("bash") if not comment.startswith("run")]
    assert not_run_here == ["demo command", "test command"], "set-up runs in .ci/run, on a new machine"


def test_python_blocks_run() -> None:
    for _, code in blocks("python"):
        exec(compile(code, "README.md", "exec"), {})


def qupath_annotations(places: list[npt.NDArray[np.int64]]) -> dict[str, Any]:
    """Squares around places as QuPath exports them, every second one with a class."""
    features = []
    for number, (y, x) in enumerate(np.clip(places, 3, 300).tolist()):
        ring = [[x - 2, y - 2], [x + 2, y - 2], [x + 2, y + 2], [x - 2, y + 2], [x - 2, y - 2]]
        classification = {"classification": {"name": "Tumor", "color": [200, 0, 0]}} if number % 2 else {}
        properties = {"objectType": "annotation", **classification}
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    return {"type": "FeatureCollection", "features": features}


@pytest.fixture
def folder_of_a_newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image, its true labels and some clicks, under the names README uses."""
    image = np.asarray(Image.open(SAMPLES / "images" / "fluorescence-1.png"))[:320, :384]
    truth = np.asarray(Image.open(SAMPLES / "masks" / "fluorescence-1.png"))[:320, :384]
    tifffile.imwrite(tmp_path / "plate_image.tif", image)
    tifffile.imwrite(tmp_path / "plate_labels.tif", truth)
    ids = [int(k) for k in np.unique(truth) if k]
    places = [np.argwhere(truth == k)[(truth == k).sum() // 2] for k in ids]
    lines = [
        f"{y},{x},{'large' if (truth == k).sum() > 200 else 'small'}" for k, (y, x) in zip(ids, places, strict=True)
    ]
    (tmp_path / "all_clicks.csv").write_text("\n".join(["y,x,class", *lines]) + "\n")
    (tmp_path / "qupath.geojson").write_text(json.dumps(qupath_annotations(places[:6])))
    (tmp_path / "centres.csv").write_text("\n".join(["y,x", *(f"{y},{x}" for y, x in places)]) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("training", [QUICK, pytest.param(LONGER, marks=pytest.mark.slow)])
def test_commands_run_as_written(training: list[str], folder_of_a_newcomer: Path) -> None:
    for comment, text in blocks("bash"):
        if comment.startswith("run:"):
            for line in text.splitlines():
                _run_line(line, folder_of_a_newcomer, training)
    assert (folder_of_a_newcomer / "report.html").stat().st_size > 10_000
    assert (folder_of_a_newcomer / "gallery.html").stat().st_size > 10_000
    for picture in ("strokes.png", "outlined.png", "score.png"):
        assert (folder_of_a_newcomer / picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_page_on_clusters_runs_as_written(
    folder_of_a_newcomer: Path, s3: str, s3_server: ObjectServer, capsys: pytest.CaptureFixture[str]
) -> None:
    s3_server.make_bucket("screen")
    ((_, text),) = [(comment, text) for comment, text in blocks("bash") if comment.startswith("run on a cluster")]
    for line in text.splitlines():
        _run_line(line, folder_of_a_newcomer)
    image = "s3://screen/plate.ome.zarr"
    by_ray, by_dask = (np.asarray(sketchscale.open(image, labels=name)) for name in ("nuclei", "again"))
    assert by_ray.max() > 50
    assert np.array_equal(by_ray, by_dask)
    assert "committed" in capsys.readouterr().out


def _run_line(line: str, folder: Path, training: list[str] = LONGER) -> None:
    arguments = shlex.split(line)
    assert arguments.pop(0) == "sketchscale"
    if arguments[:2] == ["synthesize", "train"]:
        limit = arguments.index("--steps")
        arguments[limit : limit + 2] = ["--steps", "2", "--crop", "64", "--batch", "1"]
    if arguments[0] == "train":
        limit = arguments.index("--minutes")
        arguments[limit : limit + 2] = training
    if arguments[:2] == ["classify", "train"]:
        _keep_clicks_that_hit(folder)
    if arguments[0] == "count" and "--review" in arguments:
        _judge(folder)
    assert run(arguments) == 0, line


def _judge(folder: Path) -> None:
    """A person fills in the classes of what was proposed."""
    truth = tifffile.imread(folder / "plate_labels.tif")
    with (folder / "to-judge.csv").open(newline="") as source, (folder / "judged.csv").open("w", newline="") as target:
        reader = csv.DictReader(source)
        writer = csv.DictWriter(target, list(reader.fieldnames or ()))
        writer.writeheader()
        for row in reader:
            writer.writerow({**row, "class": "large" if (truth == int(row["label"])).sum() > 200 else "small"})


def _keep_clicks_that_hit(folder: Path) -> None:
    """A model trained for seconds misses objects; a person clicks on those that are there."""
    from sketchscale.geometry import whole
    from sketchscale.io.ome_zarr.arrays import read_box
    from sketchscale.io.ome_zarr.image import open_image

    found = open_image(folder / "plate.ome.zarr").label_image("cells")
    labels = read_box(found.array(0), whole(found.shapes[0]))
    head, *lines = (folder / "all_clicks.csv").read_text().splitlines()
    first: dict[int, str] = {}
    for line in lines:
        y, x, _ = line.split(",")
        if labels[int(y), int(x)]:
            first.setdefault(int(labels[int(y), int(x)]), line)
    (folder / "clicks.csv").write_text("\n".join([head, *first.values()]) + "\n")
