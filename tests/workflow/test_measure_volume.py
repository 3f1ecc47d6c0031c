"""Objects of volumes, from labels to classes: the same bytes whatever blocks, engines and interruptions."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from sketchscale.cli import run as run_command
from sketchscale.config import Execution
from sketchscale.errors import InputError, UnknownNameError
from sketchscale.geometry import whole
from sketchscale.io.arrays import write_box
from sketchscale.io.image import commit_labels, create_labels, open_image
from sketchscale.io.table import read_table
from sketchscale.workflow.count import count
from sketchscale.workflow.measure import measure
from tests.oracles.solids import solid_features
from tests.pipeline import draw_nuclei, store_image
from tests.workflow.finished import SERIAL, files_of
from tests.workflow.killed import run_killed
from tests.workflow.test_volume import store_volume

SHAPE = (14, 30, 34)


def draw_balls(
    shape: tuple[int, ...] = SHAPE, seed: int = 0, count: int = 30
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32]]:
    """Small and large balls that do not touch, and their labels: odd ids are large."""
    rng = np.random.default_rng(seed)
    labels, places = np.zeros(shape, np.uint32), np.indices(shape)
    for label in range(1, count + 1):
        radius = 3.2 if label % 2 else 1.6
        for _ in range(50):
            center = [rng.integers(2, n - 2) for n in shape]
            near = sum((p - c) ** 2 for p, c in zip(places, center, strict=True))
            if not labels[near <= (radius + 1.5) ** 2].any():
                labels[near <= radius**2] = label
                break
    voxels = np.where(labels > 0, 150, 20) + rng.normal(0, 5, shape)
    return np.clip(voxels, 0, 255).astype(np.uint8), labels


def store_labels(address: str, labels: npt.NDArray[np.uint32], name: str = "nuclei", chunk: int = 8) -> None:
    levels = create_labels(open_image(address), name, chunks=(chunk,) * labels.ndim)
    write_box(levels[0], whole(labels.shape), labels)
    for level, step in zip(levels[1:], (2, 4), strict=False):
        small = labels[..., ::step, ::step]
        write_box(level, whole(small.shape), small)
    commit_labels(open_image(address), name)


@pytest.fixture
def balls(tmp_path: Path) -> str:
    """A volume of balls with their labels, 2 um between sections."""
    voxels, labels = draw_balls()
    address = store_volume(tmp_path / "balls.zarr", voxels, depth=2.0)
    store_labels(address, labels)
    return address


def test_the_table_of_a_volume_is_that_of_scikit_image(balls: str) -> None:
    voxels, labels = draw_balls()
    result = measure(balls, "nuclei", Execution(engine="serial", block=64))
    table = read_table(balls, "nuclei")
    assert (result.n, result.columns) == (table.num_rows, table.num_columns)
    assert result.n == len(np.unique(labels)) - 1 > 12
    for ours, theirs in zip(table.to_pylist(), solid_features(labels, voxels[None], (2.0, 1.0, 1.0)), strict=True):
        for name in ("label", "volume", "box_z_start", "box_x_stop", "euler_number"):
            assert ours[name] == theirs[name], name
        for name in ("z_um", "volume_um3", "axis_major_um", "surface_um2"):
            assert ours[name] == pytest.approx(theirs[name], rel=0.01), name
        assert ours["intensity_std_channel_0"] == pytest.approx(theirs["intensity_std_c0"])
    assert count(balls) == [{"image": balls, "labels": "nuclei", "class": None, "n": result.n}]


@pytest.mark.parametrize(
    "execution",
    [
        Execution(engine="serial", block=4096),
        Execution(engine="threads", workers=3, block=128),
        Execution(engine="processes", workers=2, block=256),
    ],
    ids=lambda e: f"{e.engine}-{e.block}",
)
def test_blocks_and_engines_do_not_change_a_byte(balls: str, execution: Execution) -> None:
    measure(balls, "nuclei", Execution(engine="serial", block=64))
    expected = files_of(Path(balls) / "tables")
    measure(balls, "nuclei", Execution(**{**_fields(execution), "overwrite": True}))
    assert files_of(Path(balls) / "tables") == expected


def _fields(execution: Execution) -> dict[str, object]:
    return {name: getattr(execution, name) for name in ("engine", "workers", "block")}


def test_floats_are_measured_and_the_table_has_only_what_was_chosen(tmp_path: Path) -> None:
    voxels, labels = draw_balls()
    address = store_volume(tmp_path / "v.zarr", np.stack([voxels, 255 - voxels]).astype(np.float32))
    store_labels(address, labels)
    measure(address, "nuclei", SERIAL, features=["intensity", "surface"])
    table = read_table(address, "nuclei")
    assert table.column_names[11:] == ["surface", *(n for n in table.column_names if n.startswith("intensity"))]
    expected = [row["intensity_mean_c1"] for row in solid_features(labels, np.stack([voxels, 255 - voxels]))]
    np.testing.assert_allclose(table.column("intensity_mean_channel_1").to_numpy(), expected, rtol=1e-6)
    with pytest.raises(UnknownNameError, match="feature of a volume 'texture'"):
        measure(address, "nuclei", Execution(engine="serial", overwrite=True), without=["texture"])


def test_killed_and_resumed_the_bytes_are_the_same(balls: str, tmp_path: Path) -> None:
    killed = tmp_path / "killed.zarr"
    shutil.copytree(balls, killed, copy_function=shutil.copy2)
    measure(balls, "nuclei", Execution(engine="serial", block=64))
    command = ["measure", str(killed), "--engine", "serial", "--block", "64", "--resume"]
    assert run_killed([command], 6).returncode == -9
    assert list(killed.rglob("measure/*.npz"))
    assert not (killed / "tables").exists()
    result = run_killed([command])
    assert result.returncode == 0, result.stderr
    assert files_of(killed / "tables") == files_of(Path(balls) / "tables")
    assert not list(killed.rglob("scratch"))


def test_labels_of_other_axes_than_their_image_are_refused_in_one_line(
    balls: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = store_image(tmp_path / "flat.zarr", draw_nuclei((30, 34)))
    deep = np.zeros((14, 30, 34), np.uint32)
    store_labels(flat, deep[0], "plane")
    levels = create_labels(open_image(balls), "plane", chunks=(16, 16))
    write_box(levels[0], whole((30, 34)), deep[0])
    commit_labels(open_image(balls), "plane")
    with pytest.raises(InputError, match=r"labels/plane is a plane of \(30, 34\) \(y, x\), its image has 14 sections"):
        measure(balls, "plane", SERIAL)
    shutil.rmtree(Path(flat) / "labels" / "plane")
    shutil.copytree(Path(balls) / "labels" / "nuclei", Path(flat) / "labels" / "plane")
    with pytest.raises(InputError, match=r"a volume of \(14, 30, 34\) \(z, y, x\), its image has axes 'yx'"):
        measure(flat, "plane", SERIAL)
    assert run_command(["measure", flat, "--labels", "plane"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    shallow = store_volume(tmp_path / "shallow.zarr", draw_balls((9, 30, 34))[0])
    store_labels(shallow, deep[:9])
    shutil.rmtree(Path(shallow) / "labels" / "nuclei")
    shutil.copytree(Path(balls) / "labels" / "nuclei", Path(shallow) / "labels" / "nuclei")
    with pytest.raises(InputError, match="expected: one shape"):
        measure(shallow, "nuclei", SERIAL)
    assert not (Path(shallow) / ".sketchscale" / "measure-nuclei").exists()
