"""Sketched images in memory and in storage: the same patches, and no more read than what was drawn needs."""

from __future__ import annotations

import functools
import http.server
import pickle
import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sketchscale.annotations.events import Stroke, append_events
from sketchscale.annotations.sketch import Sketch, open_sketch
from sketchscale.config import Execution
from sketchscale.errors import InputError
from sketchscale.training.augment import AugmentConfig
from sketchscale.training.patches import PatchSource
from sketchscale.training.prefetch import draw_batch
from sketchscale.training.thresholds import object_diameter, smallest_size
from sketchscale.workflow.runner import Runner
from sketchscale.workflow.train import images as training_images
from sketchscale.workflow.train.images import HELD_BYTES, Reading, SketchedImages, drawn_boxes
from tests.pipeline import draw_nuclei, store_image

PERCENTILES = (1.0, 99.8)
READING = Reading(channels=None, low=PERCENTILES[0], high=PERCENTILES[1], on_conflict="last")
CHUNK = 64


def discs(count: int, side: int) -> list[Stroke]:
    """Objects on a diagonal, background beside them."""
    places = [side * (i + 0.5) / count for i in range(count)]
    inside = [Stroke(points=((p, p),), radius_px=5, label="foreground", id=f"f{i}") for i, p in enumerate(places)]
    around = [Stroke(points=((p, p + 12),), radius_px=6, label="background", id=f"b{i}") for i, p in enumerate(places)]
    return [*inside, *around]


def pair(folder: Path, side: int, strokes: list[Stroke]) -> tuple[str, str]:
    folder.mkdir(exist_ok=True)
    append_events(folder / "sketch.jsonl", strokes)
    return store_image(folder / "image.zarr", draw_nuclei((side, side))), str(folder / "sketch.jsonl")


def opened(
    image: str, sketch: str, held_bytes: int = HELD_BYTES, channels: tuple[int | str, ...] | None = None
) -> SketchedImages:
    with Runner(Execution(engine="serial")) as runner:
        reading = replace(READING, channels=channels)
        return SketchedImages([image], [sketch], reading, runner, held_bytes=held_bytes)


def batches(data: SketchedImages, keep_bytes: int | None) -> list[torch.Tensor]:
    source = PatchSource(data.training(), size=32, augment=AugmentConfig(), outside=-5.0, keep_bytes=keep_bytes)
    drawn = [draw_batch(source, 0, step, range(2)) for step in range(12)]
    return [value for image, targets in drawn for value in (image, targets.distance, targets.known)]


@pytest.fixture
def small_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little margin and small boxes, so that a small image has many."""
    smaller = functools.partial(drawn_boxes, margin=24, largest=200 * 200)
    monkeypatch.setattr(training_images, "drawn_boxes", smaller)


@pytest.mark.usefixtures("small_boxes")
@pytest.mark.parametrize("held_out", [None, 0.4])
def test_images_in_storage_give_the_patches_of_images_in_memory(tmp_path: Path, held_out: float | None) -> None:
    image, sketch = pair(tmp_path, 700, discs(5, 700))
    held, stored = opened(image, sketch), opened(image, sketch, held_bytes=0)
    assert held.is_held
    assert not stored.is_held
    if held_out is not None:
        for a, b in zip(held.hold_out(held_out, 0), stored.hold_out(held_out, 0), strict=True):
            assert np.array_equal(a.labels, b.labels)
            assert np.array_equal(a.image, b.image)
    assert len(held.training()) > 1
    expected = batches(held, None)
    stored = pickle.loads(pickle.dumps(stored))  # as it reaches another process
    for keep in (None, 1):
        assert all(torch.equal(a, b) for a, b in zip(batches(stored, keep), expected, strict=True))


@pytest.mark.parametrize("channels", [None, (2, 0), ("c1", "c2", "c0")])
@pytest.mark.parametrize("held_bytes", [HELD_BYTES, 0])
def test_each_channel_is_scaled_by_its_own_percentiles_of_the_whole_image(
    tmp_path: Path, channels: tuple[int | str, ...] | None, held_bytes: int
) -> None:
    """Channels of other contrast and brightness, and a sketch of a part: numpy's percentiles are the oracle."""
    planes = [draw_nuclei((400, 400), seed).astype(np.uint16) for seed in range(3)]
    pixels = np.stack([planes[0], 30 * planes[1] + 5000, 200 * planes[2]])
    append_events(tmp_path / "sketch.jsonl", discs(1, 200))
    address = store_image(tmp_path / "image.zarr", pixels)
    data = opened(address, str(tmp_path / "sketch.jsonl"), held_bytes, channels)
    order = [0, 1, 2] if channels is None else [int(str(name).removeprefix("c")) for name in channels]
    low, high = np.percentile(pixels[order].reshape(len(order), -1), PERCENTILES, axis=1)
    scaled = (pixels[order] - low[:, None, None]) / (high - low)[:, None, None]
    (part,), (read,) = data.parts, data.training()
    assert read.image == pytest.approx(scaled[(slice(None), *part.box.slices)], abs=1e-5)
    middle = np.median(scaled.reshape(len(order), -1), axis=1)
    assert data.brightness == [pytest.approx(middle, abs=1e-6)]


def test_a_long_row_of_strokes_is_cut_into_boxes_that_own_every_pixel_once() -> None:
    line = Stroke(points=((10.0, 10.0), (2900.0, 2950.0)), radius_px=4, label="boundary", id="line")
    sketch = Sketch(shape=(3000, 3000), events=(line, *discs(6, 3000)))
    (whole,) = drawn_boxes(sketch)
    assert whole.core is None
    cut = drawn_boxes(sketch, largest=1000 * 1000)
    assert max(box.box.size for box in cut) <= (512 + 2 * 128) ** 2
    assert sum(box.box.size for box in cut) < whole.box.size
    owners = np.zeros(sketch.shape, np.int8)
    for box in cut:
        assert box.core is not None
        assert box.box.contains(box.core)
        owners[box.core.slices] += 1
    raster = sketch.rasterize()
    assert (owners[(raster.labels >= 0) | raster.boundary] == 1).all()
    assert owners.max() == 1


def test_objects_count_once_where_boxes_overlap(tmp_path: Path) -> None:
    """The control: without what is a box's own, an object on a seam is counted twice, and cut."""
    image, sketch = pair(tmp_path, 700, discs(6, 700))
    data = opened(image, sketch)
    whole = data.training()
    data._parts = [
        [training_images.SketchedPart(position=0, drawn=d, opened=data._opened[0], sketch=data.sketches[0])
         for d in drawn_boxes(data.sketches[0], margin=24, largest=1)]
    ]  # fmt: skip
    cut = data.training()
    assert len(cut) > len(whole)
    assert object_diameter(cut) == object_diameter(whole)
    assert smallest_size(cut) == smallest_size(whole)


class Counted(http.server.SimpleHTTPRequestHandler):
    reads: Counter[str]

    def do_GET(self) -> None:
        self.reads[self.path] += 1
        super().do_GET()

    def log_message(self, *said: object) -> None:
        """Nothing."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Counter[str]]]:
    """Address of a folder on a server of this process, and how often each file was read."""
    reads: Counter[str] = Counter()
    handler = functools.partial(type("Handler", (Counted,), {"reads": reads}), directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", reads
    server.shutdown()
    server.server_close()
    thread.join()


def chunks(reads: Counter[str]) -> dict[tuple[int, int], int]:
    """Reads of each chunk (y, x) of level 0."""
    found = {re.search(r"/0/c?/?(?:0/)*?(\d+)/(\d+)$", path): count for path, count in reads.items()}
    return {(int(m[1]), int(m[2])): count for m, count in found.items() if m}


def test_patches_read_the_chunks_that_were_drawn_on_and_no_others(
    tmp_path: Path, served: tuple[str, Counter[str]]
) -> None:
    """Two places of a large image, far apart. What is kept is read once; what is not, again, but nothing else."""
    strokes = [
        *discs(1, 200),
        Stroke(points=((1100.0, 1100.0),), radius_px=5, label="foreground", id="far"),
        Stroke(points=((1100.0, 1115.0),), radius_px=6, label="background", id="beside"),
    ]
    image, sketch = pair(tmp_path / "study", 1280, strokes)
    address, reads = served
    data = opened(f"{address}/study/{Path(image).name}", sketch, held_bytes=0)
    boxes = [part.box for part in data.parts]
    touched = {
        (y, x) for b in boxes
        for y in range(b.start[0] // CHUNK, -(-b.stop[0] // CHUNK))
        for x in range(b.start[1] // CHUNK, -(-b.stop[1] // CHUNK))
    }  # fmt: skip
    assert len(boxes) == 2
    assert len(touched) < (1280 // CHUNK) ** 2 / 4
    reads.clear()
    data.training()
    assert not chunks(reads)
    kept = batches(data, None)
    assert chunks(reads) == dict.fromkeys(touched, 1)
    reads.clear()
    again = batches(data, 1)
    assert all(torch.equal(a, b) for a, b in zip(again, kept, strict=True))
    found = chunks(reads)
    assert set(found) == touched
    assert max(found.values()) > 1


def test_an_image_that_cannot_be_seen_is_named_with_the_machine(tmp_path: Path) -> None:
    image, sketch = pair(tmp_path, 200, discs(1, 200))
    data = opened(image, sketch)
    data.check_readable()
    for path in sorted(Path(image).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(InputError, match=r"^on .*image\.zarr"):
        data.check_readable()


def test_the_tiles_of_a_small_sketch_are_its_image(tmp_path: Path) -> None:
    _, sketch = pair(tmp_path, 300, discs(2, 300))
    opened_sketch = open_sketch(sketch, shape=(300, 300))
    assert {tile.shape for tile in opened_sketch.annotated_tiles()} == {(300, 300)}
