"""Generated pairs: what is stored is what is drawn, whatever engine, number, kill or storage; bad input is one line."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sketchscale.annotations.events import ClassPoint, append_events
from sketchscale.cli import run
from sketchscale.config import Execution
from sketchscale.engine.base import Event
from sketchscale.errors import InputError, ResumeError
from sketchscale.geometry import whole
from sketchscale.io.ome_zarr.arrays import read_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.stores.blobs import get_blob, list_blobs
from sketchscale.synthesis import plan
from sketchscale.synthesis.model import copy_synthesis, load_synthesis, save_synthesis
from sketchscale.synthesis.pairs import _window_of, draw_pair, paint
from sketchscale.synthesis.plan import renumbered
from sketchscale.workflow.synthesize.generate import GenerateOptions, generate, read_pairs
from tests.synthesis.tiny import stored_synthesis, tiny_synthesis
from tests.workflow.killed import run_killed

SERIAL = Execution(engine="serial")


@pytest.fixture(scope="module")
def synthesis(tmp_path_factory: pytest.TempPathFactory) -> str:
    return stored_synthesis(tmp_path_factory.mktemp("synthesis") / "tiny")


def small(synthesis: str, out: Path | str, **changes: Any) -> GenerateOptions:
    return replace(GenerateOptions(synthesis=synthesis, out=str(out), images=3, size=80), **changes)


def stored(out: Path | str) -> dict[str, bytes]:
    """All objects but the records of runs, by key."""
    keys = [key for key in list_blobs(str(out), "") if not key.startswith(".sketchscale")]
    return {key: get_blob(str(out), key) or b"" for key in keys}


@pytest.fixture(scope="module")
def expected(synthesis: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one worker writes."""
    out = tmp_path_factory.mktemp("serial") / "pairs"
    generate(small(synthesis, out), SERIAL)
    return stored(out)


def test_stored_pairs_are_the_drawn_ones(synthesis: str, tmp_path: Path) -> None:
    result = generate(small(synthesis, tmp_path / "pairs", size=260, labels="cells", seed=5), SERIAL)
    objects = 0
    for number in range(3):
        image = open_image(tmp_path / "pairs" / f"{number:05d}.zarr")
        pair = draw_pair(load_synthesis(synthesis), (260, 260), seed=(5, number))
        pixels, labels = (read_box(ref, whole(n)) for ref, n in zip(*arrays_of(image), strict=True))
        np.testing.assert_array_equal(pixels, np.round(pair.image * 255))
        assert len(np.unique(pixels)) > 10
        order = [k for k in dict.fromkeys(pair.labels.ravel().tolist()) if k]
        np.testing.assert_array_equal(labels, renumber(pair.labels))
        assert (image.channels, image.dtype, len(image.shapes)) == (("red", "green", "blue"), "uint8", 2)
        objects += len(order)
    about = read_pairs(str(tmp_path / "pairs"))
    assert about is not None
    assert (about["images"], about["size"], about["seed"], about["labels"]) == (3, 260, 5, "cells")
    assert about["objects"] == result.objects == objects > 200
    with Image.open(tmp_path / "pairs" / "sheet.png") as sheet:
        assert sheet.width > 2 * 256


@pytest.mark.parametrize("shape", [(64, 96), (70, 41), (33, 130)])
def test_images_of_any_size_are_painted_with_noise_of_their_pixels(tmp_path: Path, shape: tuple[int, int]) -> None:
    made = tiny_synthesis(local_noise=2)
    save_synthesis(str(tmp_path), made)
    again = load_synthesis(str(tmp_path))
    one, same, other = (draw_pair(s, shape, seed=(seed,)) for s, seed in ((made, 4), (again, 4), (made, 5)))
    assert one.image.shape == (3, *shape)
    np.testing.assert_array_equal(one.image, same.image)
    assert not np.array_equal(one.image, other.image)
    noise = made.config.generator.draw_noise(shape, np.random.default_rng(0))
    moved = noise.copy()
    moved[1:] = moved[1:, ::-1]
    assert not np.array_equal(paint(made, one.labels, noise), paint(made, one.labels, moved))


def test_a_synthesis_without_local_noise_in_its_settings_reads_as_before(tmp_path: Path) -> None:
    made = tiny_synthesis()
    save_synthesis(str(tmp_path), made)
    path = tmp_path / "synthesis.json"
    settings = json.loads(path.read_text())
    del settings["generator"]["local_noise"]
    path.write_text(json.dumps(settings))
    expected, found = (draw_pair(s, (64, 64), seed=(1,)) for s in (made, load_synthesis(str(tmp_path))))
    np.testing.assert_array_equal(found.image, expected.image)


def arrays_of(image: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    return (image.array(), image.label_ref("cells")), (image.shapes[0], image.shapes[0][1:])


def renumber(labels: np.ndarray) -> np.ndarray:
    """Ids in the order of first pixels, one by one."""
    order = [k for k in dict.fromkeys(labels.ravel().tolist()) if k]
    return sum(((labels == k) * (i + 1) for i, k in enumerate(order)), np.zeros(labels.shape, int))


@settings(max_examples=50)
@given(st.tuples(st.integers(1, 6), st.integers(1, 6)), st.integers(0, 10**6))
def test_ids_are_renumbered_by_their_first_pixels(shape: tuple[int, int], seed: int) -> None:
    labels = np.random.default_rng(seed).choice(np.array([0, 3, 7, 4_000_000_000], np.uint32), shape)
    found, count = renumbered(labels)
    np.testing.assert_array_equal(found, renumber(labels))
    assert (found.dtype, count) == (np.uint32, len(set(labels.ravel().tolist()) - {0}))


@pytest.mark.parametrize(
    "engine",
    [
        "threads",
        pytest.param("processes", marks=pytest.mark.slow),
        pytest.param("dask", marks=pytest.mark.nightly),
        pytest.param("ray", marks=pytest.mark.nightly),
    ],
)
def test_every_engine_writes_the_same_bytes(
    synthesis: str, tmp_path: Path, expected: dict[str, bytes], engine: str
) -> None:
    pytest.importorskip({"dask": "distributed", "ray": "ray"}.get(engine, "sketchscale"))
    generate(small(synthesis, tmp_path / "pairs"), Execution(engine=engine, workers=1 if engine == "processes" else 2))
    assert stored(tmp_path / "pairs") == expected


def test_more_pairs_begin_with_the_same(synthesis: str, tmp_path: Path, expected: dict[str, bytes]) -> None:
    generate(small(synthesis, tmp_path / "pairs", images=5), SERIAL)
    found = stored(tmp_path / "pairs")
    pairs = {key: data for key, data in expected.items() if ".zarr" in key}
    assert {key: found[key] for key in pairs} == pairs
    assert sum(key.endswith("zarr/zarr.json") for key in found) == 5
    assert len({found[f"0000{n}.zarr/0/c/0/0/0"] for n in range(5)}) == 5


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(
    synthesis: str, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    out, seen = tmp_path / "pairs", list[str]()

    def on_event(event: Event) -> None:
        if event.kind == "done" and event.done == 2:
            raise KeyboardInterrupt
        seen.append(event.kind)

    with pytest.raises(KeyboardInterrupt):
        generate(small(synthesis, out), SERIAL, on_event)
    assert not (out / "pairs.json").exists()
    before = {p: p.stat().st_mtime_ns for p in (out / "00000.zarr").rglob("*")}
    with pytest.raises(ResumeError, match="size"):
        generate(small(synthesis, out, size=96), Execution(engine="serial", resume=True))
    result = generate(small(synthesis, out), Execution(engine="serial", resume=True))
    assert before == {p: p.stat().st_mtime_ns for p in (out / "00000.zarr").rglob("*")}
    assert stored(out) == expected
    assert generate(small(synthesis, out), Execution(engine="serial", resume=True)) == result
    assert not (out / ".sketchscale" / "generate" / "scratch").exists()


@pytest.mark.parametrize(
    "operations", [31, *(pytest.param(n, marks=pytest.mark.nightly) for n in (3, 12, 20, 45, 60, 75, 90))]
)
def test_a_killed_run_goes_on_wherever_it_was(
    synthesis: str, tmp_path: Path, expected: dict[str, bytes], operations: int
) -> None:
    out = tmp_path / "pairs"
    command = ["synthesize", "generate", synthesis, "--out", str(out), "--images", "3", "--size", "80"]
    command += ["--precision", "float32"]
    assert run_killed([[*command, "--engine", "serial"]], operations).returncode == -9
    assert not (out / "pairs.json").exists()
    generate(small(synthesis, out), Execution(engine="serial", resume=True))
    assert stored(out) == expected


def test_overwriting_leaves_nothing_of_what_was_there(
    synthesis: str, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    generate(small(synthesis, tmp_path / "pairs", images=6, labels="old"), SERIAL)
    generate(small(synthesis, tmp_path / "pairs"), Execution(engine="serial", overwrite=True))
    assert stored(tmp_path / "pairs") == expected


def test_a_synthesis_and_its_pairs_may_be_in_a_bucket(synthesis: str, s3: str, expected: dict[str, bytes]) -> None:
    copied = copy_synthesis(synthesis, f"{s3}/synthesis")
    generate(small(copied, f"{s3}/pairs"), Execution(engine="threads", workers=2))
    assert stored(f"{s3}/pairs") == expected
    assert not [key for key in list_blobs(f"{s3}/pairs", ".sketchscale") if "scratch" in key]


def test_a_pair_does_not_depend_on_what_its_worker_did_before(synthesis: str, tmp_path: Path) -> None:
    """Another synthesis with the same weights in the same folder: nothing kept from the first run is taken for it."""
    other = tmp_path / "other"
    changed = tiny_synthesis()
    prior = replace(changed.config.prior, diameter=14)
    save_synthesis(str(other), replace(changed, config=replace(changed.config, prior=prior)))
    generate(small(synthesis, tmp_path / "pairs"), SERIAL)
    again = Execution(engine="serial", overwrite=True)
    large = generate(small(str(other), tmp_path / "pairs"), again)
    assert stored(tmp_path / "pairs") != stored_by(small(synthesis, tmp_path / "first"))
    assert stored(tmp_path / "pairs") == stored_by(small(str(other), tmp_path / "second"))
    assert large.images == 3


def stored_by(options: GenerateOptions) -> dict[str, bytes]:
    generate(options, SERIAL)
    return stored(options.out)


# ---- given points


def write_points(path: Path, points: np.ndarray) -> str:
    path.write_text("y,x\n" + "\n".join(f"{y:g},{x:g}" for y, x in points))
    return str(path)


GRID = np.stack(np.mgrid[4:300:14, 7:260:15], -1).reshape(-1, 2)
FIELD = (GRID + np.random.default_rng(0).integers(-3, 4, GRID.shape)).astype(float)


def test_objects_stand_on_given_points_in_turn(synthesis: str, tmp_path: Path) -> None:
    """Sparse points in the second file: its pairs are the second and the fourth."""
    dense = write_points(tmp_path / "dense.csv", FIELD)
    events = [ClassPoint(point=(40.0 * i, 45.0 * i), name="cell", id=str(i)) for i in range(7)]
    append_events(tmp_path / "sparse.jsonl", events)
    options = small(synthesis, tmp_path / "pairs", images=4, size=160)
    options = replace(options, points=(dense, str(tmp_path / "sparse.jsonl")))
    first = generate(options, SERIAL)
    counts = [int(stored_labels(tmp_path / "pairs", n).max()) for n in range(4)]
    assert min(counts[0], counts[2]) > 100
    assert 0 < max(counts[1], counts[3]) < 12
    assert sum(counts) == first.objects
    about = read_pairs(str(tmp_path / "pairs"))
    assert about is not None
    assert "given points" in about["provenance"]
    moved = replace(options, out=str(tmp_path / "again"), points=(options.points[1], dense))
    generate(moved, SERIAL)
    assert int(stored_labels(tmp_path / "again", 0).max()) < 12


def test_the_same_points_parted_otherwise_into_files_are_other_pairs(synthesis: str, tmp_path: Path) -> None:
    def parted(at: int) -> GenerateOptions:
        files = (write_points(tmp_path / "a.csv", FIELD[:at]), write_points(tmp_path / "b.csv", FIELD[at:]))
        return small(synthesis, tmp_path / "pairs", images=1, points=files)

    generate(parted(50), SERIAL)
    generate(parted(50), replace(SERIAL, resume=True))
    with pytest.raises(ResumeError):
        generate(parted(40), replace(SERIAL, resume=True))


def stored_labels(out: Path, number: int) -> np.ndarray:
    image = open_image(out / f"{number:05d}.zarr")
    return read_box(image.label_ref("nuclei"), whole(image.shapes[0][1:]))


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.tuples(st.integers(64, 400), st.integers(64, 400)), st.integers(0, 30))
def test_a_window_holds_all_given_points_in_and_near_it(seed: int, shape: tuple[int, int], margin: int) -> None:
    """There is one place for the window, in the field or around it, at which these points are its points."""
    found = _window_of(FIELD, shape, margin, np.random.default_rng(seed)) - margin
    room = FIELD.max(0) + 1 - shape
    places = 0
    for start in FIELD - found[0]:
        if (start >= np.minimum(room, 0)).all() and (start <= np.maximum(room, 0)).all():
            moved, far = FIELD - start, np.array(shape) + margin
            places += np.array_equal(found, moved[((moved >= -margin) & (moved < far)).all(1)])
    assert places == 1


def test_every_point_of_a_window_has_an_object_of_its_own() -> None:
    narrow = FIELD[(FIELD < 60).all(1)]
    pair = draw_pair(SYNTHESIS, (150, 160), seed=(1,), field=narrow)
    assert len(np.unique(pair.labels)) - 1 == len(narrow)
    empty = draw_pair(SYNTHESIS, (64, 64), seed=(0,), field=np.array([[0.0, 0.0], [5000.0, 5000.0]]))
    assert not empty.labels.any()
    assert np.isfinite(empty.image).all()


SYNTHESIS = tiny_synthesis()


# ---- what is refused, and what is declared


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("y,x\n5,-7\n3,3\n", r"points\.csv: 1 of 2 points lie outside the image, the first at y 5, x -7"),
        (
            "y,x\n5,7\n3,3\n5.2,7.1\n",
            r"points\.csv: 1 of 3 points share a pixel with another, the first at y 5.2, x 7.1",
        ),
        ("y,x\n", r"no point in .*points\.csv"),
        ("y,x\n5,what\n", "line 2 of .*'what'"),
    ],
)
def test_points_that_cannot_be_are_one_line(
    synthesis: str, tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "points.csv").write_text(text)
    given = ["synthesize", "generate", synthesis, "--out", str(tmp_path / "pairs")]
    assert run([*given, "--points", str(tmp_path / "points.csv")]) == 2
    said = capsys.readouterr().err
    with pytest.raises(InputError, match=message):
        raise InputError(said)
    assert said.count("\n") == 1
    assert not (tmp_path / "pairs").exists()


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (["--size", "63"], 2, "size 63; expected: 64 to 8192 px"),
        (["--size", "9000"], 2, "size 9000; "),
        (["--size", "4096", "--memory", "0.2"], 2, "a smaller --size, or a larger --memory"),
        (["--labels", "a/b"], 2, "label name 'a/b'"),
        (["--gpus-per-worker", "1"], 2, "--device cuda"),
        (["--device", "cuda"], 5, "device 'cuda' is absent"),
        (["--images", "200000"], 2, "images 200000; "),
    ],
)
def test_what_cannot_be_made_is_one_line(
    synthesis: str, tmp_path: Path, given: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "cuda" in given and torch.cuda.is_available():
        pytest.skip("a CUDA device is there")
    assert run(["synthesize", "generate", synthesis, "--out", str(tmp_path / "pairs"), *given]) == code
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "pairs").exists()


def test_folders_that_are_something_else_are_refused(
    synthesis: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["synthesize", "generate", synthesis, "--images", "1", "--size", "64", "--engine", "serial", "--out"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert run([*command, str(tmp_path / "mine"), "--overwrite"]) == 2
    assert "holds thesis.txt and was not made by synthesize generate" in capsys.readouterr().err
    assert run([*command, synthesis, "--overwrite"]) == 2
    assert run([*command, str(tmp_path / "pairs")]) == 0
    assert run([*command, str(tmp_path / "pairs")]) == 2
    assert "--resume to continue it, --overwrite to start again" in capsys.readouterr().err
    command[2] = str(tmp_path / "pairs")
    assert run([*command, str(tmp_path / "next")]) == 2
    assert "pairs is no synthesis: synthesis.json is missing" in capsys.readouterr().err


def test_a_dry_run_writes_nothing_and_says_what_would_be_done(
    synthesis: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--images", "7", "--size", "256", "--dry-run", "--json"]
    assert run(["synthesize", "generate", synthesis, "--out", str(tmp_path / "pairs"), *given]) == 0
    (stage,) = json.loads(capsys.readouterr().out)
    assert (stage["stage"], stage["tasks"]) == ("pairs", 7)
    assert not (tmp_path / "pairs").exists()


@pytest.mark.parametrize("size", [768, pytest.param(2048, marks=pytest.mark.nightly)])
def test_a_pair_takes_no_more_memory_than_declared(size: int) -> None:
    """Measured as what this process holds above what it held after a small pair."""
    psutil = pytest.importorskip("psutil")
    process, seen, over = psutil.Process(), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.001):
            seen[0] = max(seen[0], process.memory_info().rss)

    draw_pair(SYNTHESIS, (64, 64), seed=(0,))
    before, watcher = process.memory_info().rss, threading.Thread(target=watch)
    watcher.start()
    pair = draw_pair(SYNTHESIS, (size, size), seed=(0,))
    over.set()
    watcher.join()
    held, declared = pair.image.nbytes + pair.labels.nbytes, plan.pair_bytes(SYNTHESIS.config, size)
    assert seen[0] - before < declared
    assert 3 * held < declared < 30 * held, "neither forgotten nor a guess far off"
