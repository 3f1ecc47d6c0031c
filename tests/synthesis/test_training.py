from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sketchscale.errors import InputError, MissingDataError, ResumeError, TaskError
from sketchscale.synthesis.model import Synthesis, is_synthesis, load_synthesis, save_synthesis
from sketchscale.synthesis.pairs import draw_pair
from sketchscale.synthesis.scenes import PointedImage
from sketchscale.synthesis.training import Sample, SynthesisHooks, train_synthesis
from sketchscale.training.config import Step
from tests.synthesis.test_gan import TINY
from tests.synthesis.test_scenes import pointed
from tests.training.several_processes import run_several

QUICK = replace(TINY, steps=4, sheet_every=2, save_every_s=1e9, threads=1)


def same(a: Synthesis, b: Synthesis) -> bool:
    pairs = [(a.generator, b.generator), (a.masker, b.masker)]
    states = [(x.state_dict(), y.state_dict()) for x, y in pairs]
    return all(x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x) for x, y in states)


@pytest.fixture(scope="module")
def image() -> PointedImage:
    return pointed(shape=(80, 90))


@pytest.fixture(scope="module")
def whole(image, tmp_path_factory) -> Synthesis:
    return train_synthesis([image], QUICK, run_folder=str(tmp_path_factory.mktemp("whole")))


def test_interrupted_and_resumed_is_the_same_to_the_bit(image, whole, tmp_path):
    seen: list[int] = []
    hooks = SynthesisHooks(on_step=lambda step: seen.append(step.step), interrupted=lambda: len(seen) == 3)
    with pytest.raises(KeyboardInterrupt):
        train_synthesis([image], QUICK, run_folder=str(tmp_path), hooks=hooks)
    assert seen == [1, 2, 3]
    resumed = train_synthesis([image], QUICK, run_folder=str(tmp_path), resume=True)
    assert same(resumed, whole)
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]


def test_the_log_names_every_term_and_samples_come_when_due(image, tmp_path):
    steps: list[Step] = []
    samples: list[Sample] = []
    hooks = SynthesisHooks(on_step=steps.append, on_sample=samples.append)
    train_synthesis([image], replace(QUICK, steps=3), run_folder=str(tmp_path), hooks=hooks)
    first = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert first["terms"] == steps[0].terms
    assert {"points_image", "points_maps", "cycle_image", "cycle_maps", "critics"} <= set(first["terms"])
    assert [sample.step for sample in samples] == [2, 3]
    assert samples[0].painted.shape == samples[0].scenes.image.shape
    assert samples[0].read.shape == samples[0].scenes.maps.shape


def test_a_stop_file_ends_with_a_synthesis(image, tmp_path):
    hooks = SynthesisHooks(on_step=lambda step: (tmp_path / "stop").touch() if step.step == 2 else None)
    made = train_synthesis([image], QUICK, run_folder=str(tmp_path), hooks=hooks)
    assert (made.provenance["steps"], made.provenance["ended_by"]) == (2, "stop file")
    assert not (tmp_path / "stop").exists()


class Spoilt(PointedImage):
    """NaN in everything that is read after a number of crops."""

    __slots__ = ()
    reads = 0

    def window(self, box):
        Spoilt.reads += 1
        pixels = super().window(box)
        return pixels if Spoilt.reads <= 5 else pixels * np.float32(np.nan)


def test_nan_keeps_the_last_good_state_and_the_batch(image, tmp_path):
    Spoilt.reads = 0
    bad = Spoilt(image=image.image, points=image.points, name=image.name)
    with pytest.raises(TaskError, match=r"step 3: .*nan.*to fix: go on with --resume and a smaller --rate"):
        train_synthesis([bad], QUICK, run_folder=str(tmp_path))
    kept = np.load(tmp_path / "bad_batch.npz")
    assert np.isnan(kept["image"]).any()
    assert kept["step"] == 3
    resumed = train_synthesis([image], replace(QUICK, rate=1e-4), run_folder=str(tmp_path), resume=True)
    assert resumed.provenance["steps"] == 4


def test_another_configuration_or_other_points_are_not_gone_on_with(image, tmp_path):
    hooks = SynthesisHooks(interrupted=lambda: True)
    with pytest.raises(KeyboardInterrupt):
        train_synthesis([image], QUICK, run_folder=str(tmp_path), hooks=hooks)
    with pytest.raises(ResumeError, match="differs in cycle"):
        train_synthesis([image], replace(QUICK, cycle=10.0), run_folder=str(tmp_path), resume=True)
    fewer = replace(image, points=image.points[1:])
    with pytest.raises(ResumeError, match="differs in images"):
        train_synthesis([fewer], QUICK, run_folder=str(tmp_path), resume=True)


def test_other_pixels_are_not_gone_on_with(image, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train_synthesis([image], QUICK, run_folder=str(tmp_path), hooks=SynthesisHooks(interrupted=lambda: True))
    other = replace(image, image=-image.image)
    with pytest.raises(ResumeError, match="differs in images"):
        train_synthesis([other], QUICK, run_folder=str(tmp_path), resume=True)


def test_fewer_than_ten_points_are_refused(image, tmp_path):
    few = replace(image, points=image.points[:9])
    with pytest.raises(InputError, match="9 points in all; expected: at least 10"):
        train_synthesis([few], QUICK, run_folder=str(tmp_path))
    assert not any(tmp_path.iterdir())


def test_a_saved_synthesis_paints_the_same_pairs(whole, tmp_path):
    folder = str(tmp_path / "synthesis")
    digest = save_synthesis(folder, whole)
    loaded = load_synthesis(folder)
    assert is_synthesis(folder)
    assert loaded.sha256 == digest
    a, b = draw_pair(whole, (70, 60), seed=(1, 2)), draw_pair(loaded, (70, 60), seed=(1, 2))
    assert np.array_equal(a.image, b.image)
    assert np.array_equal(a.labels, b.labels)
    assert a.image.shape == (3, 70, 60)
    assert a.labels.max() > 0
    assert 0 <= a.image.min() <= a.image.max() <= 1
    assert not np.array_equal(a.labels, draw_pair(loaded, (70, 60), seed=(1, 3)).labels)


def test_folders_that_hold_none_or_a_damaged_one_are_refused(whole, tmp_path):
    with pytest.raises(MissingDataError, match=r"is no synthesis: synthesis.json is missing"):
        load_synthesis(str(tmp_path))
    save_synthesis(str(tmp_path), whole)
    weights = Path(tmp_path / "synthesis.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(InputError, match=r"not the one of synthesis.json"):
        load_synthesis(str(tmp_path))
    settings = json.loads((tmp_path / "synthesis.json").read_text())
    (tmp_path / "synthesis.json").write_text(json.dumps(settings | {"crop": "large"}))
    with pytest.raises(InputError, match="expected: a folder that `sketchscale synthesize train` wrote"):
        load_synthesis(str(tmp_path))


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights_and_one_log(whole, tmp_path):
    run_several(tmp_path, 2, "tests.synthesis.several_processes")
    first, second = (torch.load(tmp_path / f"weights_{rank}.pt", weights_only=True) for rank in range(2))
    for net, alone in (("g", whole.generator), ("f", whole.masker)):
        assert first[net].keys() == second[net].keys() == alone.state_dict().keys()
        assert all(torch.equal(first[net][k], second[net][k]) for k in first[net])
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == QUICK.steps


def test_points_drawn_from_a_loaded_synthesis_are_those_of_the_first(whole, tmp_path):
    arrays = whole.points.arrays()
    again = type(whole.points).of(arrays).arrays()
    assert arrays.keys() == again.keys()
    assert all(np.array_equal(arrays[k], again[k]) for k in arrays)
