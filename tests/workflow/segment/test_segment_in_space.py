"""Volumes through the whole workflow: the same labels at any block, engine, kill and resume; what users see."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from sketchscale.cli import run as run_command
from sketchscale.config import Execution
from sketchscale.errors import InputError, OutputExistsError, QualityError
from sketchscale.evaluation import score_labels
from sketchscale.geometry import Box, whole
from sketchscale.io.ome_zarr.arrays import open_array, read_box, write_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.new_images import commit_image, create_image
from sketchscale.networks import NetworkConfig, create_network
from sketchscale.networks.checkpoint import ModelConfig, load_model, save_model
from sketchscale.workflow.measure.evaluate import evaluate
from sketchscale.workflow.segment.arrays import fields_of_array, segment_array
from sketchscale.workflow.segment.segment import plan_segment, segment
from sketchscale.workflow.verify import verify
from tests.integration.fields import ellipsoid_labels
from tests.pipeline import draw_volume, volume_options
from tests.workflow.killed import NEVER, run_killed

SHAPE = (20, 36, 40)


def store_volume(
    address: Path, voxels: npt.NDArray[np.generic], *, depth: float | None = None, version: str = "0.5", chunk: int = 8
) -> str:
    """An OME-Zarr volume with two levels, from (z, y, x) or (c, z, y, x) voxels."""
    axes = "czyx"[4 - voxels.ndim :]
    levels = create_image(
        str(address),
        voxels.shape,
        axes,
        voxels.dtype,
        (1,) * (voxels.ndim - 3) + (chunk,) * 3,
        depth=depth,
        unit="pixel" if depth is None else "micrometer",
        version=version,  # type: ignore[arg-type]
        levels=2,
    )
    write_box(levels[0], whole(voxels.shape), voxels)
    write_box(levels[1], whole((*voxels.shape[:-2], *(-(-n // 2) for n in voxels.shape[-2:]))), voxels[..., ::2, ::2])
    commit_image(str(address))
    return str(address)


def make_volume_model(folder: Path, dim: int) -> str:
    """Random weights, tiles of 32, a fifth of a drawn volume foreground."""
    shape = NetworkConfig(widths=(2, 4), dim=dim, outputs=dim + 1)  # type: ignore[arg-type]
    config = ModelConfig(network=shape, threshold=0.0, min_size=6, tile=32, overlap=8, diameter=27.0)
    network = create_network(shape, seed=4).eval()
    save_model(folder, network, config, {})
    fields = fields_of_array(draw_volume(SHAPE)[None], load_model(folder), volume_options(model=str(folder)))
    threshold = round(float(np.quantile(fields[3].astype(float), 0.8)), 4)
    save_model(folder, network, replace(config, threshold=threshold), {})
    return str(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    return {dim: make_volume_model(tmp_path_factory.mktemp("volume") / str(dim), dim) for dim in (2, 3)}


@pytest.fixture
def volume(tmp_path: Path) -> str:
    return store_volume(tmp_path / "volume.zarr", draw_volume(SHAPE))


def stored(address: str, level: int = 0) -> npt.NDArray[np.uint32]:
    labels = open_image(address).label_image("nuclei")
    return read_box(labels.array(level), whole(labels.shapes[level]))


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file of the results, by name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    ("dim", "execution"),
    [
        (2, Execution(engine="serial", block=64)),
        (2, Execution(engine="threads", workers=3, block=2048)),
        (2, Execution(engine="processes", workers=2, block=256)),
        (3, Execution(engine="threads", workers=2, block=256)),
    ],
    ids=lambda e: f"{e.engine}-{e.block}" if isinstance(e, Execution) else f"dim{e}",
)
def test_blocks_engines_and_workers_do_not_change_a_byte(
    volume: str, models: dict[int, str], dim: int, execution: Execution
) -> None:
    options = volume_options(model=models[dim], prominence=-8.0)  # a random network: many objects
    result = segment(volume, options, execution)
    expected = segment_array(draw_volume(SHAPE), options)
    np.testing.assert_array_equal(stored(volume), expected)
    np.testing.assert_array_equal(stored(volume, 1), expected[:, ::2, ::2])
    assert result.n == expected.max() > 4
    assert result.audit.windows == 6
    assert all(check["ok"] for check in verify(volume))


@pytest.mark.parametrize(
    "changes",
    [{"diameter": 9.0}, {"rescale": 1.5}, {"fill_holes": 0.5, "flow_error": 1.5}, {"flips": 4}],
    ids=lambda changes: "-".join(changes),
)
@pytest.mark.parametrize("dim", [2, 3])
def test_what_planes_have_volumes_have_too(
    volume: str, models: dict[int, str], dim: int, changes: dict[str, float]
) -> None:
    plain = volume_options(model=models[dim])
    options = replace(plain, **changes)
    expected = segment_array(draw_volume(SHAPE), options)
    assert not np.array_equal(expected, segment_array(draw_volume(SHAPE), plain))
    segment(volume, options, Execution(engine="serial", block=64))
    np.testing.assert_array_equal(stored(volume), expected)
    assert all(check["ok"] for check in verify(volume))


def test_labels_of_a_volume_can_be_sharded(volume: str, models: dict[int, str]) -> None:
    options = volume_options(model=models[2], shard=16)
    segment(volume, options, Execution(engine="serial", block=64))
    array = open_array(open_image(volume).label_image("nuclei").array(0))
    assert (array.shards, array.chunks) == ((16, 16, 16), (8, 8, 8))
    np.testing.assert_array_equal(array[:], segment_array(draw_volume(SHAPE), options))


def test_a_copied_volume_verifies_and_a_changed_one_does_not(
    volume: str, tmp_path: Path, models: dict[int, str]
) -> None:
    segment(volume, volume_options(model=models[2]), Execution(engine="serial", block=64))
    copied = tmp_path / "copied.zarr"
    shutil.copytree(volume, copied, copy_function=shutil.copyfile)
    assert run_command(["verify", str(copied)]) == 0
    pixels = open_image(str(copied)).volume()
    write_box(pixels.array, Box((0, 0, 0), (8, 8, 8)), np.full((8, 8, 8), 7, np.uint8))
    assert run_command(["verify", str(copied)]) == 4


def test_sections_far_apart_are_read_from_the_file_or_said(tmp_path: Path, models: dict[int, str]) -> None:
    voxels = draw_volume((9, 36, 24))
    known = store_volume(tmp_path / "known.zarr", voxels, depth=2.5)
    unknown = store_volume(tmp_path / "unknown.zarr", voxels)
    options = volume_options(model=models[2], anisotropy=2.5)
    expected = segment_array(voxels, options)
    segment(known, volume_options(model=models[2]), Execution(block=64))
    segment(unknown, options, Execution(block=512))
    np.testing.assert_array_equal(stored(known), expected)
    np.testing.assert_array_equal(stored(unknown), expected)
    assert not np.array_equal(expected, segment_array(voxels, volume_options(model=models[2])))
    labels = open_image(known).label_image("nuclei").metadata
    assert (labels.order, labels.levels[0].scale, labels.levels[1].scale) == ("zyx", (2.5, 1, 1), (2.5, 2, 2))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_channels_and_versions_are_those_of_the_image(tmp_path: Path, models: dict[int, str], version: str) -> None:
    voxels = np.stack([draw_volume((6, 24, 20), seed) for seed in (0, 1)])
    address = store_volume(tmp_path / "v.zarr", voxels, version=version)
    options = volume_options(model=models[2])
    with pytest.raises(InputError, match="2 channels"):
        segment(address, options)
    segment(address, replace(options, channels=(1,)), Execution(block=64))
    np.testing.assert_array_equal(stored(address), segment_array(voxels[1], options))
    assert open_image(address).label_image("nuclei").metadata.version == version


def test_a_dry_run_lists_the_stages_and_writes_nothing(volume: str, models: dict[int, str]) -> None:
    before = bytes_of(Path(volume))
    lines = plan_segment(volume, volume_options(model=models[2]), Execution(block=64))
    assert [line.stage for line in lines] == ["histogram", "predict", "blend", "outline", "relabel"]
    assert all(line.tasks > 1 and line.task_mb > 0 for line in lines)
    with pytest.raises(InputError, match="memory"):
        segment(volume, volume_options(model=models[2]), Execution(memory_gb=0.001))
    assert bytes_of(Path(volume)) == before


def test_what_a_volume_cannot_have_is_refused_in_one_line(tmp_path: Path, volume: str, models: dict[int, str]) -> None:
    for wrong in ({"z": 3}, {"method": "euler"}):
        with pytest.raises(InputError, match=f"leave out --{next(iter(wrong))}"):
            segment(volume, volume_options(model=models[2], **wrong))
    flat = create_image(str(tmp_path / "flat.zarr"), (8, 8), "yx", "uint8", (8, 8), levels=1)
    write_box(flat[0], Box((0, 0), (8, 8)), np.eye(8, dtype=np.uint8))
    commit_image(str(tmp_path / "flat.zarr"))
    with pytest.raises(InputError, match="axes that end with zyx"):
        segment(str(tmp_path / "flat.zarr"), volume_options(model=models[2]))
    segment(volume, volume_options(model=models[2]), Execution(block=512))
    with pytest.raises(OutputExistsError, match="--overwrite"):
        segment(volume, volume_options(model=models[2]))
    with pytest.raises(InputError, match="not empty"):
        segment_array(np.zeros((2, 3)), volume_options(model=models[2]))


def test_labels_damaged_before_the_audit_are_not_committed(
    volume: str, models: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sketchscale.workflow.segment import segment as work

    relabel = work.plan_relabel

    def damaging(outline, target):  # type: ignore[no-untyped-def]
        return replace(relabel(outline, target), fn=_write_ones)

    monkeypatch.setattr(work, "plan_relabel", damaging)
    with pytest.raises(QualityError, match="seam audit, window"):
        segment(volume, volume_options(model=models[2]), Execution(block=64, engine="serial"))
    assert not open_image(volume).labels


def _write_ones(task, job):  # type: ignore[no-untyped-def]
    write_box(job.target, task.core, np.ones(task.core.shape, np.uint32))
    return {"checksum": ""}


def segmented(image: Path, model: str, operations: int = NEVER) -> subprocess.CompletedProcess[str]:
    """Segment with resume, killed before so many renames."""
    options = ["--volume", "--model", model, "--engine", "serial", "--block", "128"]
    options += ["--precision", "float32", "--resume"]
    return run_killed([["segment", str(image), *options]], operations)


def test_killed_at_any_write_and_resumed_the_bytes_are_the_same(tmp_path: Path, models: dict[int, str]) -> None:
    pristine = Path(store_volume(tmp_path / "volume.zarr", draw_volume((12, 20, 20))))
    whole_run, killed = tmp_path / "whole.zarr", tmp_path / "killed.zarr"
    shutil.copytree(pristine, whole_run, copy_function=shutil.copy2)
    shutil.copytree(pristine, killed, copy_function=shutil.copy2)
    finished = segmented(whole_run, models[3])
    assert finished.returncode == 0, finished.stderr
    total = int(finished.stdout.split()[-1])
    for operations in (total // 4, total // 3):
        assert segmented(killed, models[3], operations).returncode == -9
    result = segmented(killed, models[3])
    assert result.returncode == 0, result.stderr
    assert bytes_of(killed / "labels") == bytes_of(whole_run / "labels")
    assert not list(killed.rglob("scratch"))


def test_the_command_says_what_it_found_and_refuses_anisotropy_of_planes(
    volume: str, models: dict[int, str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", models[2], "--block", "256", "--anisotropy", "1.5", "--min-size", "9", "--json"]
    assert run_command(["segment", volume, "--volume", *options]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["n"] == stored(volume).max()
    assert run_command(["segment", volume, *options]) == 2
    assert "add --volume" in capsys.readouterr().err
    assert run_command(["segment", volume, "--model", models[2]]) == 2
    assert "choose with --z 0 to 19" in capsys.readouterr().err


def blurred_nuclei(truth: npt.NDArray[np.int32], seed: int) -> npt.NDArray[np.uint8]:
    """A volume as a microscope sees it: nuclei of unlike brightness, blurred more along z, with shot noise."""
    rng = np.random.default_rng(seed)
    bright = np.concatenate([[0.05], rng.uniform(0.5, 1, truth.max())])[truth]
    seen = ndimage.gaussian_filter(bright, (1.5, 0.7, 0.7))
    return np.clip(rng.poisson(seen * 120), 0, 255).astype(np.uint8)


def test_the_shipped_network_outlines_nuclei_in_space_by_orthogonal_planes(tmp_path: Path) -> None:
    truth = ellipsoid_labels((32, 80, 80), 14, seed=5, radius=(7, 11))
    address = store_volume(tmp_path / "nuclei.zarr", blurred_nuclei(truth, 0), chunk=64)
    segment(address, volume_options())
    scores = score_labels(truth, stored(address)).as_dict()
    assert scores["ap"]["0.5"] > 0.8, scores
    np.save(tmp_path / "truth.npy", truth)
    assert evaluate(address, "nuclei", str(tmp_path / "truth.npy"))["ap"] == scores["ap"]
