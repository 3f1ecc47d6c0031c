"""Volumes from strokes to labels: trained, cut and resumed, segmented in any blocks; what is refused, in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sketchscale.annotations.events import Stroke, append_events
from sketchscale.annotations.simulate_planes import simulate_planes
from sketchscale.cli import run
from sketchscale.config import Execution, TrainOptions
from sketchscale.errors import InputError
from sketchscale.networks.checkpoint import load_model
from sketchscale.workflow.segment.arrays import fields_of_array, segment_array
from sketchscale.workflow.segment.segment import segment
from sketchscale.workflow.train.train import train
from sketchscale.workflow.verify import verify
from tests.pipeline import draw_nuclei, store_image, volume_options
from tests.training.test_volumes import balls
from tests.workflow.segment.test_segment_in_space import store_volume, stored

SHAPE = (16, 48, 48)


def voxels(seed: int = 0) -> npt.NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(0, 8, SHAPE)
    return np.clip((balls(seed, SHAPE) > 0) * 150 + 50 + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def options(tmp_path: Path) -> TrainOptions:
    """A volume with sections 2 um apart and pixels of 1 um, strokes on four balls, and a small training."""
    image = store_volume(tmp_path / "volume.zarr", voxels(), depth=2.0)
    append_events(tmp_path / "sketch.jsonl", simulate_planes(balls(), n_objects=4, margin=8).events)
    return small(tmp_path, image, tmp_path / "sketch.jsonl")


def small(folder: Path, image: str, sketch: Path, **changes: Any) -> TrainOptions:
    options = TrainOptions(
        images=(image,),
        sketches=(str(sketch),),
        out=str(folder / "model"),
        volume=True,
        width=4,
        steps=3,
        batch=2,
        patch=32,
        precision="float32",
        threads=1,
        preview_every=2,
        anisotropy=2.0,
    )
    return replace(options, **changes)


def test_a_volume_is_learned_and_outlined_the_same_in_any_blocks(tmp_path: Path, options: TrainOptions) -> None:
    said: list[str] = []
    result = train(replace(options, hold_out=0.3, validate_every=2), on_step=said.append)
    model = load_model(result.model)
    shape = model.config.network
    assert (shape.dim, shape.outputs, shape.anisotropy, shape.flat) == (3, 4, 2.0, 1)
    assert any(line.startswith("loss eikonal") for line in said)
    assert (tmp_path / "model" / "run" / "preview_000002.png").is_file()
    outline = volume_options(model=result.model, min_size=4, tile=32, overlap=8, prominence=-8.0, crowd=4)
    fields = fields_of_array(voxels()[None], model, outline)
    outline = replace(outline, threshold=round(float(np.quantile(fields[-1].astype(float), 0.8)), 4))
    expected = segment_array(voxels(), replace(outline, anisotropy=2.0))
    assert expected.max() > 4
    for number, execution in enumerate(
        (Execution(engine="serial", block=16), Execution(engine="threads", workers=2, block=2048))
    ):
        copy = store_volume(tmp_path / f"copy{number}.zarr", voxels(), depth=2.0)
        segment(copy, outline, execution)
        np.testing.assert_array_equal(stored(copy), expected)
        assert all(check["ok"] for check in verify(copy))


def test_the_spacing_of_the_file_is_that_of_the_network(tmp_path: Path) -> None:
    near, far = (
        store_volume(tmp_path / f"{name}.zarr", voxels(), depth=depth) for name, depth in (("near", 1.0), ("far", 3.0))
    )
    append_events(tmp_path / "sketch.jsonl", simulate_planes(balls(), n_objects=3, margin=8).events)
    options = small(tmp_path, far, tmp_path / "sketch.jsonl", anisotropy=None, steps=1)
    result = train(options)
    spacing = load_model(result.model).config.network.anisotropy
    assert spacing > 1.5
    with pytest.raises(InputError, match=r"volumes with spacing z / spacing y from .* to fix: .*--anisotropy"):
        train(replace(options, images=(near, far), sketches=options.sketches * 2, out=str(tmp_path / "two")))


def test_cut_and_resumed_trainings_write_the_same_weights(tmp_path: Path, options: TrainOptions) -> None:
    whole = train(replace(options, out=str(tmp_path / "whole"), hold_out=0.3))

    def cut(line: str) -> None:
        if line.startswith("step 1 "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(replace(options, hold_out=0.3), on_step=cut)
    resumed = train(replace(options, hold_out=0.3), Execution(resume=True))
    assert whole.sha256 == resumed.sha256
    assert (whole.threshold, whole.min_size) == (resumed.threshold, resumed.min_size)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of a command that is refused."""
    capsys.readouterr()
    assert run([str(a) for a in arguments]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_what_does_not_fit_a_volume_is_refused_in_one_line(
    tmp_path: Path, options: TrainOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    image, deep = options.images[0], options.sketches[0]
    plane = store_image(tmp_path / "plane.zarr", draw_nuclei((48, 48)))
    flat, tiff = tmp_path / "flat.jsonl", tmp_path / "labels.npy"
    append_events(flat, [Stroke(points=((5, 5), (9, 9)), radius_px=1, label="foreground", id="s1")])
    np.save(tiff, balls()[8].astype(np.uint16))
    out = ("--out", tmp_path / "none", "--steps", "1")
    line = refusal(capsys, "train", image, "--sketch", flat, "--volume", *out)
    assert "stroke s1 names no plane; expected: points [z, y, x], as the image is a volume" in line
    line = refusal(capsys, "train", image, "--sketch", tiff, "--volume", *out)
    assert "which names no plane, for a volume" in line
    line = refusal(capsys, "train", plane, "--sketch", deep, *out)
    assert "lies in a volume; expected: points [y, x], as the image is a plane; to fix: train on the volume" in line
    assert "--synthetic with --volume" in refusal(
        capsys, "train", image, "--sketch", deep, "--volume", "--synthetic", tmp_path / "s", *out
    )
    assert "--anisotropy without --volume" in refusal(
        capsys, "train", plane, "--sketch", flat, "--anisotropy", "2", *out
    )
    line = refusal(capsys, "train", image, "--sketch", deep, "--volume", "--init", "nuclei-fluo", *out)
    assert "a starting model of planes, for volumes" in line
    assert not (tmp_path / "none").exists()


def test_a_model_of_volumes_refuses_a_plane_in_one_line(
    tmp_path: Path, options: TrainOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    model = train(replace(options, steps=1)).model
    plane = store_image(tmp_path / "plane.zarr", draw_nuclei((48, 48)))
    line = refusal(capsys, "segment", plane, "--model", model)
    assert "a model of 3 dimensions, for volumes, and a plane" in line
    assert "--volume" in line
