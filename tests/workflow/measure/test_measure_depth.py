"""Objects with depth, from labels to classes and pages: the same bytes whatever blocks and engines."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import sketchscale
from sketchscale.cli import run as run_command
from sketchscale.config import ClassifyOptions, Execution
from sketchscale.errors import InputError, UnknownNameError
from sketchscale.geometry import whole
from sketchscale.io.ome_zarr.arrays import read_box, write_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.new_images import commit_labels, create_labels
from sketchscale.io.ome_zarr.table import read_table
from sketchscale.workflow.classify.apply import apply_classes
from sketchscale.workflow.classify.train import train_classes
from sketchscale.workflow.measure.count import count
from sketchscale.workflow.measure.measure import measure
from sketchscale.workflow.report.report import write_report
from sketchscale.workflow.segment.segment import segment
from sketchscale.workflow.verify import verify
from tests.oracles.features import object_features
from tests.pipeline import draw_nuclei, draw_volume, store_image, volume_options
from tests.workflow.finished import SERIAL, files_of
from tests.workflow.segment.test_segment_in_space import make_volume_model, store_volume

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
    for ours, theirs in zip(table.to_pylist(), object_features(labels, voxels[None], (2.0, 1.0, 1.0)), strict=True):
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
        pytest.param(Execution(engine="processes", workers=2, block=256), marks=pytest.mark.slow),
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
    expected = [row["intensity_mean_c1"] for row in object_features(labels, np.stack([voxels, 255 - voxels]))]
    np.testing.assert_allclose(table.column("intensity_mean_channel_1").to_numpy(), expected, rtol=1e-6)
    with pytest.raises(UnknownNameError, match="feature of a volume 'perimeter'"):
        measure(address, "nuclei", Execution(engine="serial", overwrite=True), without=["perimeter"])


def test_textures_neighbours_and_rings_are_measured_with_depth_in_storage_and_in_memory(balls: str) -> None:
    voxels, labels = draw_balls()
    measure(balls, "nuclei", SERIAL)
    expected = read_table(balls, "nuclei")
    for name in ("texture_energy_channel_0", "ring_mean_channel_0", "neighbour_volume_mean_um3"):
        assert expected.column(name).null_count == 0, name
    assert 15 < np.mean(expected.column("ring_mean_channel_0").to_numpy()) < 25
    found = sketchscale.measure(voxels, labels, engine="serial")
    names = [name for name in found.column_names if not name.startswith(("ring", "gradient"))]  # as sections are apart
    assert found.select(names).equals(expected.select(names))


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


def annotate(address: str, path: Path, n: int = 20) -> str:
    """So many objects of each size, by their label: odd ones are large."""
    labels = read_table(address, "nuclei").column("label").to_pylist()
    chosen = [label for odd in (0, 1) for label in [k for k in labels if k % 2 == odd][:n]]
    rows = [f"{label},{'large' if label % 2 else 'small'}" for label in chosen]
    path.write_text("\n".join(["label,class", *rows]) + "\n")
    return str(path)


def test_two_kinds_of_balls_are_told_apart_counted_painted_and_shown(tmp_path: Path) -> None:
    voxels, labels = draw_balls((24, 56, 60), count=120)
    address = store_volume(tmp_path / "v.zarr", voxels)
    store_labels(address, labels)
    measure(address, "nuclei", Execution(engine="serial", block=128))
    marks = annotate(address, tmp_path / "marks.csv")
    trained = train_classes(
        address, "nuclei", marks, str(tmp_path / "c"), ClassifyOptions(steps=40), execution=Execution(engine="serial")
    )
    assert trained.n == 40
    apply_classes(address, "nuclei", str(tmp_path / "c"), execution=Execution(engine="serial", block=256))
    table = read_table(address, "nuclei")
    truth = ["large" if label % 2 else "small" for label in table.column("label").to_pylist()]
    found = table.column("class").to_pylist()
    unseen = [not known for known in table.column("in_training").to_pylist()]
    assert sum(unseen) > 40
    assert np.mean(np.array(truth)[unseen] == np.array(found)[unseen]) > 0.95
    assert {row["class"]: row["n"] for row in count(address)} == {c: found.count(c) for c in ("large", "small")}
    painted = open_image(address).label_image("nuclei_class")
    number = np.array([0, *[1 if c == "large" else 2 for c in found]], np.uint8)
    rows = np.searchsorted(table.column("label").to_numpy(), labels) + 1
    np.testing.assert_array_equal(
        read_box(painted.array(0), whole(labels.shape)), np.where(labels > 0, number[np.minimum(rows, len(found))], 0)
    )
    assert all(check["ok"] for check in verify(address))
    results = [files_of(Path(address) / part) for part in ("tables", "labels/nuclei_class")]
    apply_classes(address, "nuclei", str(tmp_path / "c"), execution=Execution(engine="threads", overwrite=True))
    assert [files_of(Path(address) / part) for part in ("tables", "labels/nuclei_class")] == results
    page = Path(write_report([address], "nuclei", str(tmp_path / "page.html"))).read_text()
    assert "volume of 60 x 56 x 24 voxels, its middle section" in page
    assert "volume, voxels" in page


def test_a_volume_that_was_segmented_is_measured_verified_and_shown(tmp_path: Path) -> None:
    model = make_volume_model(tmp_path / "model", 3)
    address = store_volume(tmp_path / "v.zarr", draw_volume((12, 20, 20)), depth=1.5)
    n = segment(address, volume_options(model=model), SERIAL).n
    assert measure(address, "nuclei", SERIAL).n == n
    assert {check["check"]: check["ok"] for check in verify(address)}["tables/nuclei: volumes add up"]
    page = Path(write_report([address], "nuclei", str(tmp_path / "page.html"))).read_text()
    assert "volume, um3" in page
    flat = store_image(tmp_path / "flat.zarr", draw_nuclei((30, 34)))
    store_labels(flat, np.ones((30, 34), np.uint32))
    measure(flat, "nuclei", SERIAL)
    with pytest.raises(InputError, match="planes and of volumes"):
        write_report([address, flat], "nuclei", str(tmp_path / "both.html"))
