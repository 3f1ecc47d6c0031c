"""Bad input: one line that says what was found, what was expected and what to do; exit code 2; nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from sketchscale.cli import run
from sketchscale.errors import InputError
from sketchscale.geometry import whole
from sketchscale.io.ome_zarr.arrays import write_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.new_images import commit_image, commit_labels, create_image, create_labels
from sketchscale.workflow.segment.segment import segment
from tests.pipeline import draw_nuclei, make_model, store_image
from tests.workflow.finished import SERIAL, SHAPE, convert_small, copy_of, files_of, options

ENGINE = ("--engine", "serial", "--block", "128")
SMALL = (70, 90)


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must be refused; returns its line."""

    def call(*arguments: object, unchanged: bool = True) -> str:
        before = files_of(tmp_path)
        capsys.readouterr()
        code = run([str(a) for a in arguments])
        out, err = capsys.readouterr()
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert (code, out, len(lines)) == (2, "", 1), err
        assert "Traceback" not in err
        assert err.splitlines()[-1] == lines[0]
        assert len(lines[0]) < 900
        if unchanged:
            assert files_of(tmp_path).keys() == before.keys()
            assert files_of(tmp_path) == before
        return lines[0]

    return call


def drawn(folder: Path) -> str:
    return store_image(folder / "image.zarr", draw_nuclei(SMALL))


def chunk(array: Path) -> Path:
    """The first chunk of an array."""
    return next(p for p in sorted(array.rglob("*")) if p.is_file() and p.name.isdigit())


def says(line: str, *words: str) -> None:
    """What was found, what was expected, what to do."""
    assert "; to fix: " in line, line
    for word in words:
        assert word in line, (word, line)


# ---- files


def truncated_tiff(path: Path) -> None:
    tifffile.imwrite(path, draw_nuclei((300, 300)), tile=(64, 64))
    path.write_bytes(path.read_bytes()[:30_000])


FILES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "missing": ("a.tif", lambda path: None),
    "truncated TIFF": ("a.tif", truncated_tiff),
    "PNG that is text": ("a.png", lambda path: path.write_text("not a picture")),
    "TIFF that is text": ("a.tif", lambda path: path.write_text("not a picture")),
    "NPY of objects": ("a.npy", lambda path: np.save(path, np.array([{}], object), allow_pickle=True)),
    "empty NPY": ("a.npy", lambda path: np.save(path, np.zeros((0, 4), np.uint8))),
    "truncated NPY": ("a.npy", lambda path: path.write_bytes(b"\x93NUMPY\x01\x00")),
    "unknown suffix": ("a.docx", lambda path: path.write_bytes(b"PK")),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_converted(tmp_path: Path, refused: Callable[..., str], name: str) -> None:
    file, make = FILES[name]
    make(tmp_path / file)
    line = refused("convert", tmp_path / file, tmp_path / "out.zarr", "--chunk", 64, *ENGINE[:2], unchanged=False)
    assert file in line
    assert "expected" in line
    with pytest.raises(InputError):
        open_image(tmp_path / "out.zarr")


def break_json(image: Path) -> None:
    (image / "zarr.json").write_text('{"zarr_format": 3, "attrib')


def corrupt_chunk(image: Path) -> None:
    path = chunk(image / "0")
    path.write_bytes(path.read_bytes()[:-3])


IMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "broken json": (break_json, "zarr.json"),
    "no metadata": (lambda image: (image / "zarr.json").unlink(), "image.zarr"),
    "no array": (lambda image: shutil.rmtree(image / "0"), "image.zarr/0"),
    "damaged array metadata": (lambda image: (image / "0/zarr.json").write_text("[]"), "0/zarr.json"),
    "a chunk that does not decode": (corrupt_chunk, "does not decode"),
    "nothing there": (shutil.rmtree, "does not exist"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_that_is_damaged(tmp_path: Path, model: str, refused: Callable[..., str], name: str) -> None:
    damage, words = IMAGES[name]
    damage(Path(drawn(tmp_path)))
    says(refused("segment", tmp_path / "image.zarr", "--model", model, *ENGINE), words)


def test_a_file_that_is_no_ome_zarr(tmp_path: Path, model: str, refused: Callable[..., str]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", draw_nuclei(SMALL))
    says(refused("segment", tmp_path / "a.tif", "--model", model), "sketchscale convert")


def test_a_missing_chunk_of_labels_is_an_error(done: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    image = copy_of(done, tmp_path)
    shutil.rmtree(image / "tables")
    shutil.rmtree(image / ".sketchscale/measure-nuclei")
    chunk(image / "labels/nuclei/0").unlink()
    says(refused("measure", image, *ENGINE), "is absent", "sketchscale verify")


def test_a_missing_chunk_of_a_sparse_input_is_counted_and_reported(tmp_path: Path, model: str) -> None:
    image = convert_small(tmp_path)
    chunk(Path(image, "0")).unlink()
    result = segment(image, options(model), SERIAL)
    assert result.absent_chunks == 1
    assert run(["measure", image, *ENGINE]) == 0
    assert run(["report", image, "--out", str(tmp_path / "r.html")]) == 0
    assert "1 chunks are not stored" in (tmp_path / "r.html").read_text("utf-8")


# ---- pixels, axes, channels


@pytest.mark.parametrize(
    ("value", "words"), [(np.nan, "NaN"), (np.inf, "Inf"), (None, "constant")], ids=["NaN", "Inf", "constant"]
)
def test_pixels_that_have_no_brightness(
    tmp_path: Path, model: str, refused: Callable[..., str], value: float | None, words: str
) -> None:
    pixels = draw_nuclei(SMALL).astype(np.float32)
    pixels[3, 80] = 0 if value is None else value
    image = store_image(tmp_path / "i.zarr", np.zeros_like(pixels) if value is None else pixels)
    says(refused("segment", image, "--model", model, *ENGINE), words)


def stack(path: Path, axes: str, shape: tuple[int, ...]) -> str:
    chunks = (*(1,) * (len(axes) - 2), 64, 64)
    (level,) = create_image(str(path), shape, axes, np.dtype("u1"), chunks, levels=1)
    write_box(level, whole(shape), np.broadcast_to(draw_nuclei((shape[-2], shape[-1])), shape).copy())
    commit_image(str(path))
    return str(path)


@pytest.mark.parametrize("axis", ["t", "z"])
def test_several_planes_need_a_choice(tmp_path: Path, model: str, refused: Callable[..., str], axis: str) -> None:
    image = stack(tmp_path / "i.zarr", f"{axis}yx", (3, *SMALL))
    says(refused("segment", image, "--model", model, *ENGINE), f"--{axis} 0 to 2")
    assert "outside 0 to 2" in refused("segment", image, "--model", model, f"--{axis}", 3, *ENGINE)
    assert run(["segment", image, "--model", model, f"--{axis}", "2", *ENGINE]) == 0


def test_channels_that_the_model_does_not_read(tmp_path: Path, model: str, refused: Callable[..., str]) -> None:
    image = store_image(tmp_path / "i.zarr", np.stack([draw_nuclei(SMALL), draw_nuclei(SMALL, 1)]))
    says(refused("segment", image, "--model", model, *ENGINE), "2 channels (c0, c1)", "expected: 1", "--channel")
    assert "known: c0, c1" in refused("segment", image, "--model", model, "--channel", "dapi", *ENGINE)
    two = make_model(tmp_path / "two", channels=2)
    says(refused("segment", drawn(tmp_path), "--model", two, *ENGINE), "1 channels", "expected: 2")


def test_too_little_memory_is_refused_before_anything_is_written(
    tmp_path: Path, model: str, refused: Callable[..., str]
) -> None:
    image = drawn(tmp_path)
    says(refused("segment", image, "--model", model, "--memory", 0.02, *ENGINE), "declares", "--memory")


# ---- sketches


def event(**fields: Any) -> str:
    return json.dumps({"event": "stroke", "radius_px": 2, "points": [[10, 10], [10, 30]], **fields}) + "\n"


SKETCHES: dict[str, tuple[str, str]] = {
    "outside the image": (event(label="boundary", points=[[10, 10], [10, 400]]), "leaves"),
    "overlapping classes": (
        event(label="foreground") + event(label="background") + event(label="boundary", points=[[30, 5], [30, 50]]),
        "--on-conflict last",
    ),
    "nothing but foreground": (event(label="foreground"), "no background"),
    "two numbers for a pixel": (
        event(label="foreground", object=1) + event(label="foreground", object=2, points=[[5, 20], [15, 20]]),
        "two objects",
    ),
    "an object on both sides of a boundary": (
        event(label="foreground", object=1) + event(label="boundary", radius_px=0.5, points=[[5, 20], [15, 20]]),
        "crosses a boundary stroke at [10, 20]",
    ),
    "empty": ("", "no stroke in"),
    "not JSON": ("strokes\n", "line 1"),
    "another event": ('{"event":"poem"}\n', "unknown event 'poem'"),
    "torn": (event(label="foreground")[:-5], "--repair"),
    "unknown class": (event(label="cell"), "unknown class"),
}


@pytest.mark.parametrize("name", SKETCHES)
def test_a_sketch_that_nothing_can_be_learned_from(tmp_path: Path, refused: Callable[..., str], name: str) -> None:
    text, words = SKETCHES[name]
    (tmp_path / "s.jsonl").write_text(text)
    command = ("train", drawn(tmp_path), "--sketch", tmp_path / "s.jsonl", "--out", tmp_path / "model", "--steps", 1)
    assert words in refused(*command, "--init", "random")
    assert not (tmp_path / "model").exists()


def two_values(path: Path) -> None:
    Image.fromarray(np.where(draw_nuclei(SMALL) > 90, 255, 128).astype(np.uint8)).save(path)


FOREIGN_SKETCHES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "unknown kind": ("s.docx", lambda path: path.write_bytes(b"PK"), "no kind of sketch that is known"),
    "JPEG": ("s.jpg", lambda path: path.write_bytes(b"\xff\xd8\xff"), "JPEG"),
    "two values, no 0": ("s.png", two_values, "two values, 128 and 255, and no 0"),
    "cut PNG": ("s.png", lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0"), "cannot be read"),
    "no class": (
        "s.geojson",
        lambda path: path.write_text(
            '{"type":"FeatureCollection","features":[{"type":"Feature","properties":{"objectType":"annotation"},'
            '"geometry":{"type":"LineString","coordinates":[[1,1],[4,4]]}}]}'
        ),
        "--class none=foreground",
    ),
}


@pytest.mark.parametrize("name", FOREIGN_SKETCHES)
def test_a_sketch_of_another_program_that_cannot_be_read(
    tmp_path: Path, model: str, refused: Callable[..., str], name: str
) -> None:
    file, make, words = FOREIGN_SKETCHES[name]
    make(tmp_path / file)
    image, sketch = drawn(tmp_path), tmp_path / file
    for command in (
        ("train", image, "--sketch", sketch, "--out", tmp_path / "model", "--steps", 1),
        ("where-next", image, "--model", model, "--sketch", sketch, *ENGINE[:2]),
        ("sketch", "import", sketch, "--image", image, "--out", tmp_path / "s.jsonl"),
        ("sketch", "export", sketch, "--image", image, "--out", tmp_path / "out.geojson"),
        ("sketch", "show", sketch, "--image", image),
    ):
        line = refused(*command)
        assert words in line
        assert "--repair" not in line
    assert "expected: a stroke log" in refused("sketch", "show", sketch, "--repair")


def test_images_and_sketches_come_in_pairs(tmp_path: Path, refused: Callable[..., str]) -> None:
    image = drawn(tmp_path)
    says(refused("train", image, image, "--sketch", "s.jsonl", "--out", tmp_path / "m"), "2 images and 1 sketches")
    line = refused("train", image, "--sketch", tmp_path / "none.jsonl", "--out", tmp_path / "m")
    assert "none.jsonl" in line


# ---- models and truth


def flip_weight(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "model.safetensors").write_bytes(data)


MODELS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (shutil.rmtree, "no model"),
    "an empty folder": (lambda folder: [p.unlink() for p in folder.iterdir()], "config.json is missing"),
    "text as weights": (lambda folder: (folder / "model.safetensors").write_text("weights"), "SHA-256"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
    "a flipped byte": (flip_weight, "SHA-256"),
    "a config of something else": (lambda folder: (folder / "config.json").write_text('{"a": 1}'), "config.json"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_that_is_no_model(tmp_path: Path, model: str, refused: Callable[..., str], name: str) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    damage, words = MODELS[name]
    damage(folder)
    says(refused("segment", drawn(tmp_path), "--model", folder, *ENGINE), words)


def test_a_folder_that_is_no_classifier(done: Path, tmp_path: Path, model: str, refused: Callable[..., str]) -> None:
    image = copy_of(done, tmp_path)
    for folder in (model, tmp_path / "none"):
        says(refused("classify", "apply", image, "--classifier", folder, *ENGINE), "classify train")


@pytest.mark.parametrize(
    ("truth", "words"),
    [(np.zeros((9, 9), np.uint16), "(9, 9)"), (np.zeros(SHAPE, np.float32), "float32"), (None, "does not exist")],
    ids=["another shape", "floats", "missing"],
)
def test_truth_that_cannot_be_compared(
    done: Path, tmp_path: Path, refused: Callable[..., str], truth: Any, words: str
) -> None:
    image = copy_of(done, tmp_path)
    if truth is not None:
        tifffile.imwrite(tmp_path / "t.tif", truth)
    assert words in refused("evaluate", image, "--truth", tmp_path / "t.tif", *ENGINE)


# ---- outputs


def test_outputs_that_are_there(done: Path, tmp_path: Path, model: str, refused: Callable[..., str]) -> None:
    image = copy_of(done, tmp_path)
    Image.fromarray(draw_nuclei(SMALL)).save(tmp_path / "a.png")
    (tmp_path / "r.html").write_text("mine")
    (tmp_path / "s.jsonl").write_text(event(label="boundary"))
    for command in (
        ("convert", tmp_path / "a.png", image),
        ("segment", image, "--model", model, *ENGINE),
        ("measure", image, *ENGINE),
        ("classify", "apply", image, "--classifier", done / "classes", *ENGINE),
        ("classify", "train", image, "--annotations", done / "classes.csv", "--out", done / "classes"),
        ("report", image, "--out", tmp_path / "r.html"),
        ("train", image, "--sketch", tmp_path / "s.jsonl", "--out", image, "--steps", 1),
        ("sketch", "import", tmp_path / "a.png", "--out", tmp_path / "s.jsonl"),
        ("demo", "--out", tmp_path),
    ):
        says(refused(*command), "--overwrite")


def test_labels_of_another_tool_are_not_replaced(tmp_path: Path, model: str, refused: Callable[..., str]) -> None:
    image = open_image(drawn(tmp_path))
    (level,) = create_labels(image, "nuclei", chunks=(64, 64))
    write_box(level, whole(SMALL), np.zeros(SMALL, np.uint32))
    commit_labels(image, "nuclei")
    says(refused("segment", image.address, "--model", model, *ENGINE), "another origin", "--overwrite")


def test_a_store_that_cannot_be_written(tmp_path: Path, model: str, refused: Callable[..., str]) -> None:
    image = Path(drawn(tmp_path))
    with zipfile.ZipFile(tmp_path / "image.zarr.zip", "w") as archive:
        for name, data in files_of(image).items():
            archive.writestr(name, data)
    says(refused("segment", tmp_path / "image.zarr.zip", "--model", model, *ENGINE), "read only")


def mounted(folder: Path, *arguments: str) -> Iterator[Path]:
    """A mount that only root can make, and only where the system lets it."""
    folder.mkdir()
    result = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"no mounts here: {result.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=False)


def commands_writing_to(folder: Path, image: str, model: str) -> list[tuple[object, ...]]:
    """Commands whose output goes to a folder; the last one writes beside an image that is there."""
    parent = folder.parent
    np.save(parent / "a.npy", draw_nuclei((300, 300)))
    np.save(parent / "truth.npy", np.arange(90_000, dtype=np.int32).reshape(300, 300))
    box = '{"event":"box","start":[0,0],"stop":[60,60]}\n'
    (parent / "s.jsonl").write_text(event(label="foreground") + box)
    return [
        ("convert", parent / "a.npy", folder / "new.zarr", "--chunk", 64, *ENGINE[:2]),
        ("sketch", "import", parent / "truth.npy", "--out", folder / "s.jsonl"),
        ("sketch", "export", parent / "s.jsonl", "--out", folder / "s.geojson"),
        ("sketch", "show", parent / "s.jsonl", "--out", folder / "s.png"),
        ("train", parent / "small.zarr", "--sketch", parent / "s.jsonl", "--out", folder / "m", "--steps", 1),
        ("segment", image, "--model", model, *ENGINE, "--resume"),
    ]


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    source = tmp_path / "source"
    source.mkdir()
    store_image(source / "image.zarr", draw_nuclei(SMALL))
    yield from mounted(tmp_path / "fixed", "--bind", "-o", "ro", str(source))


def test_a_read_only_place(read_only: Path, tmp_path: Path, model: str, refused: Callable[..., str]) -> None:
    store_image(tmp_path / "small.zarr", draw_nuclei(SMALL))
    for command in commands_writing_to(read_only, str(read_only / "image.zarr"), model):
        says(refused(*command), "cannot", "ead-only")


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 kB with an image on it and no space left."""
    for folder in mounted(tmp_path / "full", "-t", "tmpfs", "-o", "size=200k", "tmpfs"):
        store_image(folder / "image.zarr", draw_nuclei(SMALL))
        (folder / "ballast").write_bytes(bytes(shutil.disk_usage(folder).free))
        yield folder


def settled(folder: Path, seconds: float = 10.0) -> dict[str, bytes]:
    """Its files, once a write that failed is over: one error ends the call, the chunks beside it end by themselves."""
    deadline = time.monotonic() + seconds
    while any("partial" in path.name for path in folder.rglob("*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    return files_of(folder)


ROOM = {"convert": (0, 32_000), "train": (0, 32_000), "segment": (0, 16_000, 48_000)}
"""Bytes that are left when a command starts, so that it fails at once, or half way; none for the others."""


def test_a_full_disk(full: Path, tmp_path: Path, model: str, refused: Callable[..., str]) -> None:
    """What was there stays as it was, nothing new looks finished, and with more space --resume goes on."""
    store_image(tmp_path / "small.zarr", draw_nuclei(SMALL))
    before = files_of(full)
    for room, command in [
        (room, c) for c in commands_writing_to(full, str(full / "image.zarr"), model) for room in ROOM.get(c[0], (0,))
    ]:
        os.truncate(full / "ballast", len(before["ballast"]) - room)
        says(refused(*command, unchanged=False), "cannot", "pace")
        after = settled(full)
        assert {name: after[name] for name in before if name != "ballast"} == {
            name: data for name, data in before.items() if name != "ballast"
        }
        assert not [name for name in after if "partial" in name]
        assert open_image(full / "image.zarr").labels == ()
        for made in set(full.iterdir()) - {full / "image.zarr", full / "ballast"}:
            assert made.is_dir(), made
            shutil.rmtree(made)
        with (full / "ballast").open("ab") as file:
            file.write(bytes(shutil.disk_usage(full).free))
    (full / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=50m", str(full)], check=True)
    assert run(["segment", str(full / "image.zarr"), "--model", model, *ENGINE, "--resume"]) == 0


# ---- whichever engine runs the task


@pytest.mark.parametrize("engine", ["threads", "processes"])
def test_an_error_in_a_worker_is_the_same_line(
    tmp_path: Path, model: str, refused: Callable[..., str], engine: str
) -> None:
    image = Path(drawn(tmp_path))
    corrupt_chunk(image)
    serial = refused("segment", image, "--model", model, *ENGINE)
    assert refused("segment", image, "--model", model, "--engine", engine, "--workers", 1) == serial
