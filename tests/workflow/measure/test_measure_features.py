"""Which features are measured, under which names, and what cannot be measured at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from sketchscale.cli import run
from sketchscale.geometry import whole
from sketchscale.io.ome_zarr.arrays import write_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.new_images import commit_labels, create_labels
from sketchscale.io.ome_zarr.table import list_tables, read_table
from sketchscale.objects.measurement.features import FEATURES, GROUPS
from tests.pipeline import draw_nuclei, store_image

SHAPE = (70, 90)
SERIAL = ["--engine", "serial"]


@pytest.fixture
def image(tmp_path: Path) -> str:
    """An image with two squares and one pixel as labels `cells`."""
    labels = np.zeros(SHAPE, np.uint32)
    labels[4:20, 5:19], labels[40:60, 50:80], labels[0, 89] = 3, 5, 9
    return with_labels(store_image(tmp_path / "i.zarr", draw_nuclei(SHAPE)), labels)


def with_labels(image: str, labels: np.ndarray, name: str = "cells") -> str:
    levels = create_labels(open_image(image), name, chunks=(32, 32))
    write_box(levels[0], whole(SHAPE), labels)
    commit_labels(open_image(image), name)
    return image


def columns(image: str) -> list[str]:
    return read_table(image, "cells").column_names


def test_all_groups_are_measured_unless_some_are_named(image: str) -> None:
    assert run(["measure", image, "--labels", "cells", *SERIAL]) == 0
    everything = read_table(image, "cells")
    assert {"solidity", "touching_count", "nearest_distance"} <= set(everything.column_names)
    assert any(name.startswith("texture_energy_") for name in everything.column_names)
    assert run(["measure", image, "--labels", "cells", "--features", "geometry,ring", "--overwrite", *SERIAL]) == 0
    some = read_table(image, "cells")
    assert some.equals(everything.select(some.column_names))
    assert "solidity" in some.column_names
    assert not [name for name in some.column_names if name.startswith(("texture", "intensity", "nearest"))]
    words = ["--without", "texture", "--without", "solidity", "--overwrite"]
    assert run(["measure", image, "--labels", "cells", *words, *SERIAL]) == 0
    names = columns(image)
    assert "feret_diameter_max" in names
    assert not [name for name in names if name.startswith(("texture", "gradient", "solidity"))]


def test_the_position_is_always_there(image: str) -> None:
    assert run(["measure", image, "--labels", "cells", "--features", "solidity", *SERIAL]) == 0
    position = [name for name, feature in FEATURES.items() if feature.group == "position" and 2 in feature.axes]
    assert columns(image) == ["label", *position, "solidity"]
    assert GROUPS[0] == "position"


def test_another_choice_is_another_run(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["measure", image, "--labels", "cells", "--without", "ring", *SERIAL]) == 0
    assert run(["measure", image, "--labels", "cells", "--resume", *SERIAL]) == 2
    assert "features" in capsys.readouterr().err


def test_a_profile_is_written_beside_the_table(image: str) -> None:
    assert run(["measure", image, "--labels", "cells", "--profile", "pycytominer", *SERIAL]) == 0
    assert set(list_tables(image)) == {"cells", "cells_pycytominer"}
    profile = read_table(image, "cells_pycytominer")
    assert profile.column("Cells_AreaShape_Area").to_pylist() == read_table(image, "cells").column("area").to_pylist()


def test_ngio_reads_the_table_back(image: str) -> None:
    ngio = pytest.importorskip("ngio")
    assert run(["measure", image, "--labels", "cells", *SERIAL]) == 0
    ours = read_table(image, "cells").to_pandas().set_index("label")
    theirs = ngio.open_ome_zarr_container(image).get_feature_table("cells").dataframe
    assert list(theirs.columns) == list(ours.columns)
    assert theirs.index.tolist() == [3, 5, 9]
    for name in ("solidity", "touching_count", "nearest_distance"):
        np.testing.assert_allclose(theirs[name].astype(float), ours[name].astype(float), err_msg=name)
    texture = next(name for name in ours.columns if name.startswith("texture_energy"))
    assert theirs[texture].isna().tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--features", "textures"], "did you mean 'texture'"),
        (["--without", "aera"], "did you mean 'area'"),
        (["--profile", "cellprofiler"], "unknown profile"),
    ],
)
def test_names_that_are_not_known_are_refused_before_anything_is_written(
    image: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["measure", image, "--labels", "cells", *words, *SERIAL]) == 2
    assert message in capsys.readouterr().err
    assert not list_tables(image)


def test_labels_of_another_shape_are_one_line(image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = store_image(tmp_path / "small.zarr", draw_nuclei((20, 30)))
    levels = create_labels(open_image(other), "cells", chunks=(32, 32))
    write_box(levels[0], whole((20, 30)), np.ones((20, 30), np.uint32))
    commit_labels(open_image(other), "cells")
    replace(Path(image) / "labels/cells", Path(other) / "labels/cells")
    assert run(["measure", image, "--labels", "cells", *SERIAL]) == 2
    assert refusal(capsys) == (
        "error: labels of (20, 30), an image of (70, 90); expected: one shape (y, x); "
        "to fix: measure the level that was segmented"
    )
    assert not list_tables(image)


def test_labels_that_are_no_whole_numbers_are_one_line(
    image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    floats = store_image(tmp_path / "floats.zarr", np.zeros(SHAPE, np.float32))
    replace(Path(image) / "labels/cells/0", Path(floats) / "0")
    assert run(["measure", image, "--labels", "cells", *SERIAL]) == 2
    assert "labels of type float32; expected: whole numbers" in refusal(capsys)


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """The only line on stderr."""
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def replace(old: Path, new: Path) -> None:
    shutil.rmtree(old)
    shutil.copytree(new, old)
