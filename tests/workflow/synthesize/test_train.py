"""`synthesize train` through files and the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from sketchscale.cli import run
from sketchscale.config import Execution
from sketchscale.errors import InputError, OutputExistsError
from sketchscale.geometry import Box
from sketchscale.synthesis.model import load_synthesis
from sketchscale.training.config import Step
from sketchscale.workflow.runner import Runner
from sketchscale.workflow.synthesize.clicked_images import hold_in_memory, read_pointed
from sketchscale.workflow.synthesize.train import SynthesisOptions, _Watch, synthesize_train
from tests.pipeline import draw_nuclei, store_image

SERIAL = Execution(engine="serial")


def image_and_points(folder: Path, seed: int = 0, shape: tuple[int, int] = (140, 150)) -> tuple[str, str]:
    """A drawn image, and the centres of its blobs."""
    pixels = draw_nuclei(shape, seed)
    labels, count = ndimage.label(ndimage.gaussian_filter(pixels.astype(float), 1) > 130)
    centres = np.round(ndimage.center_of_mass(labels > 0, labels, range(1, count + 1)))
    path = folder / f"points{seed}.csv"
    path.write_text("y,x\n" + "".join(f"{y:g},{x:g}\n" for y, x in centres))
    return store_image(folder / f"image{seed}.zarr", pixels), str(path)


def small(folder: Path, *pairs: tuple[str, str]) -> SynthesisOptions:
    images, points = zip(*pairs, strict=True)
    return SynthesisOptions(
        images=images,
        points=points,
        out=str(folder / "synthesis"),
        diameter=12,
        steps=2,
        batch=1,
        crop=64,
        width=1,
        threads=1,
        sheet_every=2,
    )


def test_a_synthesis_its_pictures_and_what_was_recorded(tmp_path):
    lines: list[str] = []
    options = small(tmp_path, image_and_points(tmp_path, 0), image_and_points(tmp_path, 1))
    result = synthesize_train(options, SERIAL, on_step=lines.append)
    made = load_synthesis(result.synthesis)
    assert made.sha256 == result.sha256
    assert made.config.generator.channels == 1
    assert made.config.prior.diameter == 12
    assert made.provenance["options"]["diameter"] == 12
    with Image.open(tmp_path / "synthesis" / "run" / "sheet_000002.png") as sheet:
        assert sheet.size[0] > 128
    assert (tmp_path / "synthesis" / "run" / "loss.png").is_file()
    assert any(line.startswith("step 1  fool image") for line in lines)


def test_a_folder_that_is_there_is_refused_and_kept(tmp_path):
    options = small(tmp_path, image_and_points(tmp_path))
    synthesize_train(options, SERIAL)
    before = (tmp_path / "synthesis" / "synthesis.safetensors").read_bytes()
    with pytest.raises(OutputExistsError, match="is not empty"):
        synthesize_train(options, SERIAL)
    assert (tmp_path / "synthesis" / "synthesis.safetensors").read_bytes() == before
    again = synthesize_train(replace(options), replace(SERIAL, overwrite=True))
    assert (tmp_path / "synthesis" / "synthesis.safetensors").read_bytes() == before
    assert again.steps == 2


def test_images_in_memory_and_in_storage_give_the_same_crops(tmp_path):
    image, points = image_and_points(tmp_path)
    with Runner(SERIAL) as runner:
        stored = read_pointed([image], [points], channels=None, low=1, high=99.8, runner=runner)
    held, kept = hold_in_memory(stored)[0], hold_in_memory(stored, held_bytes=0)[0]
    assert kept is stored[0]
    assert type(held) is not type(kept)
    box = Box((7, 11), (80, 75))
    assert np.array_equal(held.window(box), kept.window(box))
    assert -1 <= held.window(box).min() < held.window(box).max() <= 1
    assert held.shape == kept.shape == (140, 150)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("5,500\n", r"points0.csv: 1 of \d+ points lie outside the image, the first at y 5, x 500"),
        ("5,6\n5,6\n", r"points0.csv: 1 of \d+ points share a pixel with another, the first at y 5, x 6"),
    ],
    ids=["outside", "twice"],
)
def test_points_that_do_not_fit_name_their_file(rows, said, tmp_path):
    image, points = image_and_points(tmp_path)
    with open(points, "a") as file:
        file.write(rows)
    with pytest.raises(InputError, match=said):
        synthesize_train(small(tmp_path, (image, points)), SERIAL)
    assert not (tmp_path / "synthesis").exists()


def test_images_of_other_channels_and_too_few_points(tmp_path):
    one = image_and_points(tmp_path, 0)
    color = np.stack([draw_nuclei((140, 150), 5)] * 3)
    other = (store_image(tmp_path / "color.zarr", color), one[1])
    with pytest.raises(InputError, match=r"color.zarr has 3 channels, .*image0.zarr 1; expected: the same channels"):
        synthesize_train(small(tmp_path, one, other), SERIAL)
    few = tmp_path / "few.csv"
    few.write_text("y,x\n5,5\n")
    state = tmp_path / "synthesis" / "run" / "state.safetensors"
    state.parent.mkdir(parents=True)
    state.write_bytes(b"of an earlier training")
    with pytest.raises(InputError, match="1 point in all; expected: at least 10"):
        synthesize_train(small(tmp_path, (one[0], str(few))), replace(SERIAL, overwrite=True))
    assert state.read_bytes() == b"of an earlier training"


def test_the_command_says_what_is_missing_in_one_line(tmp_path, capsys):
    image, points = image_and_points(tmp_path)
    out = str(tmp_path / "synthesis")
    arguments = ["synthesize", "train", image, "--points", points, "--out", out, "--steps", "1", "--batch", "1"]
    quick = ["--crop", "64", "--width", "1", "--threads", "1", "--sheet-every", "0"]
    assert run([*arguments, *quick, "--diameter", "12", "--points", points]) == 2
    assert "1 images and 2 files of points" in capsys.readouterr().err
    assert run([*arguments, *quick, "--diameter", "12", "--size", "huge"]) == 2
    assert "size" in capsys.readouterr().err
    assert run([*arguments, *quick, "--diameter", "12", "--json"]) == 0
    assert '"steps": 1' in capsys.readouterr().out


def test_what_the_curve_is_drawn_from_stays_small_however_long_training_is(tmp_path):
    watch = _Watch(str(tmp_path), lambda line: None)
    for number in range(1, 9001):
        watch.note(Step(step=number, loss=1.0, rate=1e-4, elapsed_s=0.0, progress=0.0, terms={"fool_image": 1.0}))
    kept = [step.step for step in watch.steps]
    assert 400 < len(kept) < 1200
    assert len(set(np.diff(kept))) == 1
    assert kept[0] < 40
    assert kept[-1] > 8960
