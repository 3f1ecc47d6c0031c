from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sketchscale.config import Execution, SegmentOptions
from sketchscale.errors import InputError, OutputExistsError, ResumeError
from sketchscale.geometry import whole
from sketchscale.io.ome_zarr.arrays import read_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.networks.checkpoint import load_model, save_model
from sketchscale.workflow.segment.arrays import fields_of_array, segment_array
from sketchscale.workflow.segment.job import integration_config
from sketchscale.workflow.segment.segment import plan_segment, segment
from sketchscale.workflow.verify import verify
from tests.pipeline import draw_nuclei, store_image
from tests.workflow.killed import NEVER, run_killed


def stored(address: str, name: str = "nuclei") -> np.ndarray[tuple[int, ...], np.dtype[np.uint32]]:
    ref = open_image(address).label_ref(name)
    return read_box(ref, whole(open_image(address).label_image(name).shapes[0]))


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file of the results, by name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    "execution",
    [
        Execution(engine="serial", block=128),
        Execution(engine="serial", block=192),
        Execution(engine="serial", block=4096),
        Execution(engine="threads", workers=3, block=128),
        Execution(engine="processes", workers=2, block=128),
    ],
    ids=lambda e: f"{e.engine}-{e.block}",
)
def test_blocks_engines_and_workers_do_not_change_a_byte(image: str, model: str, execution: Execution) -> None:
    result = segment(image, SegmentOptions(model=model), execution)
    expected = segment_array(draw_nuclei((200, 330)), SegmentOptions(model=model))
    np.testing.assert_array_equal(stored(image), expected)
    assert result.n == expected.max() > 20


@pytest.mark.parametrize(
    "given",
    [
        {"rescale": 0.5, "fill_holes": 0.2, "flow_error": 2.0},
        {"rescale": 0.75, "flips": 4},
        {"rescale": 1.3, "flow_error": 1.9},
        {"diameter": 10.0, "flips": 8, "fill_holes": 1.0},
        {"join_share": 0.2, "join_radius": 12, "link_radius": 1},
    ],
    ids=str,
)
def test_every_option_gives_the_labels_of_the_whole_image(tmp_path: Path, model: str, given: dict[str, float]) -> None:
    options = SegmentOptions(model=with_diameter(model, tmp_path / "model"), **given)
    pixels = draw_nuclei((130, 200), seed=4)
    address = store_image(tmp_path / "image.zarr", pixels)
    planned = [line.stage for line in plan_segment(address, options, Execution(block=64))]
    result = segment(address, options, Execution(block=64))
    expected = segment_array(pixels, options)
    np.testing.assert_array_equal(stored(address), expected)
    assert result.n == expected.max() > 3
    assert ("inspect" in planned) == ("fill_holes" in given or "flow_error" in given)
    assert set(planned) <= {line.stage for line in result.stages}
    plain = segment_array(pixels, SegmentOptions(model=model))
    assert not np.array_equal(expected, plain)
    assert all(check["ok"] for check in verify(address))


def with_diameter(model: str, folder: Path) -> str:
    """The same weights in a model that knows its objects' diameter, 20 px."""
    loaded = load_model(model)
    save_model(folder, loaded.network, replace(loaded.config, diameter=20.0), loaded.provenance)
    return str(folder)


def test_zero_is_a_threshold_and_not_the_lack_of_one(model: str) -> None:
    pixels = draw_nuclei((70, 70))
    zero, own = (segment_array(pixels, SegmentOptions(model=model, threshold=t, min_size=0)) for t in (0.0, None))
    fields = fields_of_array(pixels[None], load_model(model), SegmentOptions(model=model))
    assert (zero > 0).sum() == (fields[2] > 0).sum() != (own > 0).sum()


def test_a_minimum_size_of_zero_keeps_every_pixel_and_scales_only_the_models_own(model: str) -> None:
    loaded = load_model(model)
    assert integration_config(loaded, SegmentOptions(rescale=2, min_size=0)).min_size == 0
    assert integration_config(loaded, SegmentOptions(rescale=2, min_size=12)).min_size == 12
    assert integration_config(loaded, SegmentOptions(rescale=2)).min_size == loaded.config.min_size / 4
    assert integration_config(loaded, SegmentOptions(rescale=2)).threshold == loaded.config.threshold / 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"diameter": 10.0, "rescale": 2.0}, "exclude each other"),
        ({"diameter": 10.0}, "--rescale, if the model does not know"),
        ({"diameter": 0.0}, "more than 0 px"),
        ({"rescale": 0.0}, "0.05 to 20"),
        ({"flow_error": -1.0}, "--flow-error"),
    ],
)
def test_options_without_meaning_are_refused_before_anything_is_written(
    image: str, model: str, given: dict[str, float], expected: str
) -> None:
    before = bytes_of(Path(image))
    with pytest.raises(InputError, match=expected):
        segment(image, SegmentOptions(model=model, **given))
    assert bytes_of(Path(image)) == before


@pytest.mark.parametrize("shape", [(1, 70), (70, 1), (1, 1), (63, 65)])
def test_thin_and_tiny_images_are_segmented_like_any_other(tmp_path: Path, model: str, shape: tuple[int, int]) -> None:
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    if pixels.size == 1:
        with pytest.raises(InputError, match="constant"):
            segment(store_image(tmp_path / "i.zarr", pixels), SegmentOptions(model=model))
        return
    address = store_image(tmp_path / "i.zarr", pixels)
    segment(address, SegmentOptions(model=model), Execution(block=64))
    np.testing.assert_array_equal(stored(address), segment_array(pixels, SegmentOptions(model=model)))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_are_written_in_the_version_of_the_image(tmp_path: Path, model: str, version: str) -> None:
    address = store_image(tmp_path / "i.zarr", draw_nuclei((130, 140)), version=version)
    segment(address, SegmentOptions(model=model))
    assert open_image(address).label_image("nuclei").metadata.version == version


def test_existing_labels_need_overwrite_or_resume(image: str, model: str) -> None:
    options = SegmentOptions(model=model)
    first = segment(image, options)
    before = bytes_of(Path(image) / "labels")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        segment(image, options)
    assert segment(image, options, Execution(resume=True)).n == first.n
    assert segment(image, options, Execution(overwrite=True)).n == first.n
    assert bytes_of(Path(image) / "labels") == before


def test_resume_with_other_options_names_what_differs(image: str, model: str) -> None:
    segment(image, SegmentOptions(model=model))
    with pytest.raises(ResumeError, match=r"something else: integration\.\S*min_size: \d+ -> 30; expected"):
        segment(image, SegmentOptions(model=model, min_size=30), Execution(resume=True))


def test_resume_after_the_input_changed_is_refused(image: str, model: str) -> None:
    segment(image, SegmentOptions(model=model))
    chunk = next(p for p in sorted(Path(image, "0").rglob("*")) if p.is_file() and p.name.isdigit())
    chunk.write_bytes(chunk.read_bytes())
    with pytest.raises(ResumeError, match="input"):
        segment(image, SegmentOptions(model=model), Execution(resume=True))


def test_a_dry_run_lists_the_stages_and_writes_nothing(image: str, model: str) -> None:
    before = bytes_of(Path(image))
    lines = plan_segment(image, SegmentOptions(model=model), Execution(block=128))
    assert [line.stage for line in lines] == ["histogram", "predict", "blend", "outline", "relabel"]
    assert all(line.tasks > 1 and line.task_mb > 0 for line in lines)
    assert bytes_of(Path(image)) == before


def segmented(image: Path, model: str, operations: int = NEVER) -> subprocess.CompletedProcess[str]:
    """Segment with resume, killed before so many renames."""
    options = ["--model", model, "--engine", "serial", "--block", "128", "--precision", "float32", "--resume"]
    return run_killed([["segment", str(image), *options]], operations)


@pytest.mark.parametrize("kills", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_killed_at_any_write_and_resumed_the_bytes_are_the_same(tmp_path: Path, model: str, kills: int) -> None:
    """A run is killed before each of a spread of its renames, the same image again and again, then finished."""
    pristine = Path(store_image(tmp_path / "image.zarr", draw_nuclei((130, 200))))
    whole_run, killed = tmp_path / "whole.zarr", tmp_path / "killed.zarr"
    shutil.copytree(pristine, whole_run, copy_function=shutil.copy2)
    shutil.copytree(pristine, killed, copy_function=shutil.copy2)
    finished = segmented(whole_run, model)
    assert finished.returncode == 0, finished.stderr
    total = int(finished.stdout.split()[-1])
    died = 0
    for operations in np.linspace(1, total / 2, kills).astype(int) if kills > 1 else [total // 3]:
        result = segmented(killed, model, int(operations))
        died += result.returncode == -9
        assert result.returncode in (-9, 0), result.stderr
    assert died >= max(1, kills - 1)
    result = segmented(killed, model)
    assert result.returncode == 0, result.stderr
    assert bytes_of(killed / "labels") == bytes_of(whole_run / "labels")
    assert not list(killed.rglob("scratch"))
    assert not list(killed.rglob("*.partial"))


def test_how_ends_join_is_the_models_unless_an_option_says_otherwise() -> None:
    model = load_model("nuclei-fluo")
    assert integration_config(model, SegmentOptions()).join_share is None
    given = replace(model, config=replace(model.config, join_share=0.3, join_radius=4))
    for options, expected in (({}, (0.3, 4)), ({"join_share": 1.0}, (1.0, 4)), ({"join_radius": 0}, (0.3, 0))):
        rule = integration_config(given, SegmentOptions(**options))
        assert (rule.join_share, rule.join_radius) == expected
    for wrong in ({"join_share": 1.5}, {"join_radius": -1}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            replace(model.config, **wrong)


def test_a_share_of_a_gpu_for_a_network_on_the_processor_is_refused(image: str) -> None:
    with pytest.raises(InputError, match=r"--gpus-per-worker 0\.5 with --device cpu; .* --device cuda"):
        segment(image, execution=Execution(engine="serial", gpus_per_worker=0.5))
