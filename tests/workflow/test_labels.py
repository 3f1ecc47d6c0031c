"""Masks of other programs: in with their ids, out as they were; what does not fit is refused in one line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.cli import run
from sketchscale.config import Execution
from sketchscale.errors import InputError
from sketchscale.geometry import whole
from sketchscale.io.arrays import open_array, write_box
from sketchscale.io.convert import ConvertConfig, convert
from sketchscale.io.image import open_image
from sketchscale.io.new_images import commit_labels, create_labels
from sketchscale.io.sources import open_source
from sketchscale.workflow.labels import export_labels, import_labels
from sketchscale.workflow.measure import measure
from sketchscale.workflow.verify import verify


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
    result = import_labels(str(folder / "mask.npy"), image, "cells", Execution(engine="serial", block=block))
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
