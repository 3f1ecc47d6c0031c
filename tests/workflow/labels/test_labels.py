"""Masks of other programs: in with their ids, out as they were; what does not fit is refused in one line."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sketchscale.cli import run
from sketchscale.config import Execution
from sketchscale.errors import InputError
from sketchscale.geometry import Box, whole
from sketchscale.io.files.convert import ConvertConfig
from sketchscale.io.files.masks import few_values, label_components
from sketchscale.io.files.sources import open_source
from sketchscale.io.ome_zarr.arrays import open_array, write_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.label_sources import read_labels
from sketchscale.io.ome_zarr.new_images import commit_labels, create_labels
from sketchscale.workflow.labels.components import split_components
from sketchscale.workflow.labels.labels import export_labels, import_labels
from sketchscale.workflow.measure.measure import measure
from sketchscale.workflow.runner import Runner
from sketchscale.workflow.verify import verify
from tests.converted import convert


@dataclass(frozen=True, eq=False)
class InMemory:
    labels: np.ndarray[Any, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.labels.shape

    def read(self, box: Box) -> np.ndarray[Any, Any]:
        return self.labels[box.slices]


def pieces_by_hand(labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Pieces of equal pixels that touch by a side or a corner, found by walking, in the order of their first pixels."""
    found, count = np.zeros(labels.shape, np.int64), 0
    steps = [step for step in itertools.product((-1, 0, 1), repeat=labels.ndim) if any(step)]
    for start in map(tuple, np.argwhere(labels > 0).tolist()):
        if found[start]:
            continue
        count += 1
        found[start], waiting = count, [start]
        while waiting:
            here = waiting.pop()
            for step in steps:
                there = tuple(a + b for a, b in zip(here, step, strict=True))
                inside = all(0 <= a < n for a, n in zip(there, labels.shape, strict=True))
                if inside and not found[there] and labels[there] == labels[here]:
                    found[there] = count
                    waiting.append(there)
    return found


def make_image(folder: Path, shape: tuple[int, ...]) -> str:
    """An image of ours with noise."""
    tifffile.imwrite(folder / "image.tif", np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8))
    convert(folder / "image.tif", folder / "image.ome.zarr")
    return str(folder / "image.ome.zarr")


@settings(max_examples=25)
@given(height=st.integers(1, 90), width=st.integers(1, 90), block=st.integers(1, 90), seed=st.integers(0, 99))
def test_ids_survive_import_and_export(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, block: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("labels")
    mask = np.random.default_rng(seed).choice(np.array([0, 3, 70_000, 2**32 - 1], np.uint32), (height, width))
    np.save(folder / "mask.npy", mask)
    image = make_image(folder, (height, width))
    serial = Execution(engine="serial", block=block)
    result = import_labels(str(folder / "mask.npy"), image, "cells", serial, components="never")
    assert result.largest == mask.max()
    stored = open_image(image).label_image("cells")
    assert np.array_equal(open_array(stored.array(0))[...], mask)
    export_labels(image, "cells", str(folder / "out.tif"))
    assert np.array_equal(tifffile.imread(folder / "out.tif").reshape(mask.shape), mask)


@pytest.mark.parametrize(("shape", "depth"), [((40, 50), None), ((3, 40, 50), 1.5), ((3, 40, 50), None)])
def test_pixel_size_and_section_distance_survive_export(
    tmp_path: Path, shape: tuple[int, ...], depth: float | None
) -> None:
    tifffile.imwrite(tmp_path / "image.tif", np.zeros(shape, np.uint8), metadata=None, photometric="minisblack")
    config = ConvertConfig(spacing=(0.25, 0.5), depth=depth)
    convert(tmp_path / "image.tif", tmp_path / "image.ome.zarr", config=config)
    mask = np.arange(np.prod(shape), dtype=np.uint32).reshape(shape)
    np.save(tmp_path / "mask.npy", mask)
    import_labels(str(tmp_path / "mask.npy"), str(tmp_path / "image.ome.zarr"), "cells")
    for name in ("out.tif", "twin.tif"):
        export_labels(str(tmp_path / "image.ome.zarr"), "cells", str(tmp_path / name))
    assert (tmp_path / "out.tif").read_bytes() == (tmp_path / "twin.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        assert (tiff.series[0].axes, tiff.series[0].dtype) == ("ZYX"[-len(shape) :], np.uint32)
        assert tiff.pages.first.get_resolution("MICROMETER") == pytest.approx((2.0, 4.0))
    (image,) = convert(tmp_path / "out.tif", tmp_path / "back.zarr")
    wanted = (0.25, 0.5) if len(shape) == 2 else (depth or 1.0, 0.25, 0.5)
    assert image.metadata.levels[0].scale[1:] == wanted
    assert {axis.unit for axis in image.metadata.axes if axis.name in "yx"} == {"micrometer"}
    assert (open_source(tmp_path / "out.tif").depth, open_source(tmp_path / "out.tif").notes) == (depth, ())
    np.testing.assert_array_equal(open_array(image.array(0))[...].reshape(shape), mask)
    import_labels(str(tmp_path / "out.tif"), str(tmp_path / "image.ome.zarr"), "again")


def test_without_a_pixel_size_none_is_written(tmp_path: Path) -> None:
    image = make_image(tmp_path, (20, 30))
    np.save(tmp_path / "mask.npy", np.ones((20, 30), np.uint32))
    import_labels(str(tmp_path / "mask.npy"), image, "cells")
    export_labels(image, "cells", str(tmp_path / "out.tif"))
    assert open_source(tmp_path / "out.tif").spacing is None
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        assert "PhysicalSize" not in tiff.ome_metadata
        assert tiff.pages.first.resolutionunit == 1


@settings(max_examples=15)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 30), st.integers(1, 30)),
    flat=st.booleans(),
    block=st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20)),
    share=st.sampled_from([0.05, 0.3, 0.5, 0.9]),
    ids=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_pieces_do_not_depend_on_the_blocks_they_are_found_in(
    shape: tuple[int, ...], flat: bool, block: tuple[int, ...], share: float, ids: int, seed: int
) -> None:
    shape, block = (shape[1:], block[1:]) if flat else (shape, block)
    random = np.random.default_rng(seed)
    labels = np.where(random.random(shape) < share, random.integers(1, ids + 1, shape), 0)
    with Runner(Execution(engine="serial")) as runner:
        split = split_components(InMemory(labels), "always", few_values(labels), block, runner)
    found = read_labels(split.labels, whole(shape))
    assert np.array_equal(found, pieces_by_hand(labels))
    assert split.count == found.max()
    stop = tuple(int(n) for n in random.integers(1, np.array(shape) + 1))
    start = tuple(int(n) for n in random.integers(0, stop))
    part = Box(start, stop)
    assert np.array_equal(read_labels(split.labels, part), found[part.slices])


@pytest.mark.parametrize("shape", [(4, 4, 1), (4, 1, 4), (1, 4, 4), (4, 1), (1, 1)])
def test_an_axis_of_length_1_joins_no_other_pixels(shape: tuple[int, ...]) -> None:
    """The control: scikit-image's label joins wrong pixels in a volume one voxel wide."""
    for seed in range(100):
        labels = np.random.default_rng(seed).integers(0, 4, shape)
        assert np.array_equal(label_components(labels), pieces_by_hand(labels))


@pytest.mark.parametrize("block", [16, 4096])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_mask_of_one_value_becomes_an_object_for_each_piece(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str, block: int
) -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[2:6, 30:50], mask[4:38, 3:9], mask[38, 9], mask[20:30, 20:55] = 255, 255, 255, 255
    path, image = tmp_path / f"mask.{suffix}", make_image(tmp_path, (40, 60))
    Image.fromarray(mask).save(path)
    command = ["labels", "import", str(path), image, "--labels", "cells", "--engine", "serial", "--block", str(block)]
    assert run(command) == 0
    assert "its only value is 255; its 3 connected components are the objects" in capsys.readouterr().out
    stored = open_array(open_image(image).label_image("cells").array(0))[...]
    assert np.array_equal(stored, pieces_by_hand(mask))
    assert [stored[2, 30], stored[4, 3], stored[38, 9], stored[20, 20]] == [1, 2, 2, 3]
    assert run([*command, "--overwrite", "--components", "never"]) == 0
    assert "pieces" not in capsys.readouterr().out
    assert np.array_equal(open_array(open_image(image).label_image("cells").array(0))[...], mask)


def test_labels_of_several_ids_and_masks_in_one_piece_keep_their_ids(tmp_path: Path) -> None:
    image = make_image(tmp_path, (20, 20))
    for name, where in (("one", [(2, 2)]), ("two", [(2, 2), (9, 9)])):
        labels = np.zeros((20, 20), np.uint16)
        for number, (y, x) in enumerate(where, start=7):
            labels[y : y + 3, x] = labels[y : y + 3, x + 4] = number
            labels[y, x : x + 5] = number
        labels[15, 15] = 8 if name == "two" else 0
        np.save(tmp_path / f"{name}.npy", labels)
        assert import_labels(str(tmp_path / f"{name}.npy"), image, name).pieces is None
        assert np.array_equal(open_array(open_image(image).label_image(name).array(0))[...], labels)
    always = import_labels(str(tmp_path / "two.npy"), image, "always", components="always")
    assert (always.pieces, always.largest) == (3, 3)


def test_a_killed_import_of_a_mask_goes_on_with_the_same_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.random.default_rng(3).random((70, 80)) < 0.3
    np.save(tmp_path / "mask.npy", mask.astype(np.uint8) * 255)
    image = make_image(tmp_path, (70, 80))
    monkeypatch.setattr("sketchscale.workflow.labels.labels._CHUNK", 16)
    serial = Execution(engine="serial", block=32)
    writes: list[int] = []

    def failing(*arguments: Any) -> str:
        writes.append(1)
        if len(writes) == 3:
            raise KeyboardInterrupt
        return write_box(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("sketchscale.objects.copying.write_box", failing)
        with pytest.raises(KeyboardInterrupt):
            import_labels(str(tmp_path / "mask.npy"), image, "cells", serial)
    result = import_labels(str(tmp_path / "mask.npy"), image, "cells", replace(serial, resume=True))
    stored = open_array(open_image(image).label_image("cells").array(0))[...]
    assert np.array_equal(stored, pieces_by_hand(mask))
    assert result.pieces == stored.max()
    again = import_labels(str(tmp_path / "mask.npy"), image, "cells", replace(serial, resume=True))
    assert again == result


@pytest.mark.parametrize("values", [(1, 2), (128, 255)])
def test_two_values_without_a_zero_are_one_line_and_leave_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], values: tuple[int, int]
) -> None:
    mask = np.full((30, 20), values[0], np.uint8)
    mask[5:9, 5:9] = values[1]
    np.save(tmp_path / "mask.npy", mask)
    image = make_image(tmp_path, (30, 20))
    command = ["labels", "import", str(tmp_path / "mask.npy"), image, "--labels", "cells"]
    assert run(command) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert f"two values, {values[0]} and {values[1]}, and no 0; expected: 0 for the background" in error
    assert "--components never" in error
    assert open_image(image).labels == ()
    assert run([*command, "--components", "sometimes"]) == 2
    assert "known: always, auto, never" in capsys.readouterr().err
    assert run([*command, "--components", "never"]) == 0


def test_ids_that_the_file_does_not_hold_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    image = make_image(tmp_path, (20, 30))
    array = create_labels(open_image(image), "wide", dtype="uint64", chunks=(16, 16))[0]
    write_box(array, whole((20, 30)), np.full((20, 30), 2**32 + 5, np.uint64))
    commit_labels(open_image(image), "wide")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="label 4294967301"):
        export_labels(image, "wide", str(tmp_path / "out.tif"))
    assert sorted(tmp_path.iterdir()) == before


def test_volume_survives(tmp_path: Path) -> None:
    mask = np.random.default_rng(1).integers(0, 9, (5, 40, 30), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "mask.tif", mask, metadata={"axes": "ZYX"})
    tifffile.imwrite(tmp_path / "image.tif", mask.astype(np.uint8), metadata={"axes": "ZYX"})
    convert(tmp_path / "image.tif", tmp_path / "image.ome.zarr")
    image = str(tmp_path / "image.ome.zarr")
    import_labels(str(tmp_path / "mask.tif"), image, "cells", Execution(engine="serial"))
    export_labels(image, "cells", str(tmp_path / "out.tif"))
    assert np.array_equal(tifffile.imread(tmp_path / "out.tif"), mask)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (np.ones((20, 30), np.uint16), "the shape of the image"),
        (np.full((30, 20), 0.5, np.float32), "whole numbers"),
        (np.full((30, 20), -1, np.int16), "0 and above"),
        (np.full((30, 20), 2**32, np.uint64), "ids up to 4294967295"),
    ],
)
def test_misfit_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mask: np.ndarray, expected: str
) -> None:
    np.save(tmp_path / "mask.npy", mask)
    image = make_image(tmp_path, (30, 20))
    assert run(["labels", "import", str(tmp_path / "mask.npy"), image, "--labels", "cells"]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(error) == 1
    assert expected in error[0]
    assert open_image(image).labels == ()
    assert not (Path(image) / "labels").exists()


@pytest.mark.parametrize("mask", [np.ones((20, 30), np.uint16), np.full((30, 20), -1, np.int16)])
def test_misfit_does_not_replace_what_is_there(tmp_path: Path, mask: np.ndarray) -> None:
    np.save(tmp_path / "good.npy", np.full((30, 20), 7, np.uint8))
    np.save(tmp_path / "mask.npy", mask)
    image = make_image(tmp_path, (30, 20))
    options = [image, "--labels", "cells"]
    assert run(["labels", "import", str(tmp_path / "good.npy"), *options]) == 0
    assert run(["labels", "import", str(tmp_path / "mask.npy"), *options, "--overwrite"]) == 2
    assert open_array(open_image(image).label_image("cells").array(0))[...].min() == 7
    assert run(["verify", image]) == 0


def test_foreign_labels_and_files_are_not_replaced(tmp_path: Path) -> None:
    np.save(tmp_path / "mask.npy", np.ones((30, 20), np.uint8))
    image = make_image(tmp_path, (30, 20))
    arguments = ["labels", "import", str(tmp_path / "mask.npy"), image, "--labels", "cells"]
    assert [run(arguments), run(arguments), run([*arguments, "--overwrite"])] == [0, 2, 0]
    out = ["labels", "export", image, "--labels", "cells", "--out", str(tmp_path / "out.tif")]
    assert [run(out), run(out), run([*out, "--overwrite"])] == [0, 2, 0]
    assert not list(tmp_path.glob(".*part"))


def test_labels_replaced_after_measuring_are_found(tmp_path: Path) -> None:
    mask = np.zeros((30, 20), np.uint16)
    mask[2:8, 3:9], mask[12:20, 5:15] = 1, 2
    np.save(tmp_path / "mask.npy", mask)
    np.save(tmp_path / "other.npy", np.where(mask == 1, 1, 0).astype(np.uint16))
    image = make_image(tmp_path, (30, 20))
    import_labels(str(tmp_path / "mask.npy"), image, "cells")
    measure(image, "cells")
    assert run(["verify", image]) == 0
    os.utime(next(p for p in Path(image, "labels/cells/0").rglob("*") if p.is_file() and p.name != "zarr.json"), (1, 1))
    assert run(["verify", image]) == 0, "a copy without file times holds the same labels"
    import_labels(str(tmp_path / "other.npy"), image, "cells", Execution(overwrite=True))
    checks = {check["check"]: check for check in verify(image)}
    assert not checks["labels/cells: unchanged since measure"]["ok"]
    assert "ids up to 1 on 36 px, the table has 2 on 116 px" in checks["labels/cells: unchanged since measure"]["found"]
