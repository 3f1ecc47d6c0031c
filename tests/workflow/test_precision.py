"""The precision is settled once; what goes on, goes on in the precision that it began with.

Images, sketches and points are drawn; `says` replaces the measurement, as a machine of another kind would.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sketchscale.config import ClassifyOptions, Execution, SegmentOptions
from sketchscale.errors import InputError, ResumeError
from sketchscale.io.runs.ledger import stored_fingerprint
from sketchscale.networks import precision
from sketchscale.networks.checkpoint import load_model
from sketchscale.objects.classifiers import load_classifier
from sketchscale.synthesis.model import load_synthesis
from sketchscale.training.state import read_state
from sketchscale.workflow import precision as work
from sketchscale.workflow.classify.apply import apply_classes, train_classes
from sketchscale.workflow.doctor import examine, instruction_sets
from sketchscale.workflow.segment.job import recipe_of
from sketchscale.workflow.segment.segment import segment
from sketchscale.workflow.synthesize.generate import GenerateOptions, generate
from sketchscale.workflow.synthesize.train import synthesize_train
from sketchscale.workflow.train.train import train
from tests.pipeline import draw_nuclei, draw_volume, store_image, volume_options
from tests.synthesis.tiny import stored_synthesis
from tests.workflow.finished import files_of
from tests.workflow.segment.test_segment_in_space import store_volume
from tests.workflow.synthesize.test_train import image_and_points
from tests.workflow.synthesize.test_train import small as small_synthesis
from tests.workflow.train.test_train import image_and_sketch
from tests.workflow.train.test_train import small as small_training

Says = Callable[[str], None]
SERIAL = Execution(engine="serial", block=128)
AGAIN = replace(SERIAL, resume=True)
OTHER = {"float32": "bfloat16", "bfloat16": "float32"}


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Says:
    """Make the measurement find that this precision is twice as fast as the other."""

    def say(name: str) -> None:
        rates = precision.Rates(float32=4.0, bfloat16=2.0 if name == "float32" else 8.0)
        monkeypatch.setattr(precision, "measure_rates", lambda device, use: rates)

    return say


def recorded(image: str, run: str) -> str:
    fingerprint = stored_fingerprint(image, run)
    assert fingerprint is not None
    return str(json.loads(fingerprint["recipe"])["precision"])


def labels_of(image: str, name: str = "nuclei") -> dict[str, bytes]:
    return files_of(Path(image) / "labels" / name)


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_segmentation_goes_on_in_the_precision_that_it_began_with(
    tmp_path: Path, model: str, says: Says, name: str
) -> None:
    """Nothing but the record of the run is left: as after a kill at its start."""
    image = store_image(tmp_path / "image.zarr", draw_nuclei((70, 100)))
    options = SegmentOptions(model=model, max_size=80)
    says(name)
    segment(image, options, SERIAL)
    before = labels_of(image)
    shutil.rmtree(Path(image) / "labels")
    for part in ("commit", "stage", "ledger"):
        shutil.rmtree(Path(image) / ".sketchscale/segment-nuclei" / part)
    says(OTHER[name])
    segment(image, options, AGAIN)
    assert (recorded(image, "segment-nuclei"), labels_of(image)) == (name, before)
    with pytest.raises(ResumeError, match="recipe"):
        segment(image, replace(options, precision=OTHER[name]), AGAIN)


def test_the_two_precisions_do_not_give_the_same_bytes(tmp_path: Path, model: str) -> None:
    """Else the tests here would show nothing."""
    image = store_image(tmp_path / "image.zarr", draw_nuclei((70, 100)))
    for name in OTHER:
        segment(image, SegmentOptions(model=model, max_size=80, labels=name, precision=name), SERIAL)
    assert labels_of(image, "float32") != labels_of(image, "bfloat16")


def test_a_volume_goes_on_in_the_precision_that_it_began_with(tmp_path: Path, model: str, says: Says) -> None:
    image = store_volume(tmp_path / "volume.zarr", draw_volume((12, 40, 40)))
    options = volume_options(model=model)
    says("bfloat16")
    segment(image, options, SERIAL)
    before = labels_of(image)
    says("float32")
    segment(image, options, AGAIN)
    assert (recorded(image, "segment-nuclei"), labels_of(image)) == ("bfloat16", before)


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_training_goes_on_in_the_precision_that_it_began_with(tmp_path: Path, says: Says, name: str) -> None:
    pair = image_and_sketch(tmp_path)
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    says(name)
    train(small_training(whole, pair, precision="auto", preview_every=0), SERIAL)
    options = small_training(halved, pair, precision="auto", preview_every=0)
    with pytest.raises(KeyboardInterrupt):
        train(options, SERIAL, on_step=interrupting)
    says(OTHER[name])
    train(options, AGAIN)
    first, second = (load_model(str(folder / "model")) for folder in (whole, halved))
    assert second.provenance["training"]["precision"] == name
    assert second.provenance["steps"] == 4
    assert same(first.network, second.network)


def interrupting(line: str) -> None:
    if line.startswith("step 1"):
        raise KeyboardInterrupt


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_a_synthesis_goes_on_in_the_precision_that_it_began_with(tmp_path: Path, says: Says) -> None:
    pair = image_and_points(tmp_path)
    whole, halved = (small_synthesis(tmp_path / name, pair) for name in ("whole", "halved"))
    says("float32")
    synthesize_train(whole, SERIAL)
    with pytest.raises(KeyboardInterrupt):
        synthesize_train(halved, SERIAL, on_step=interrupting)
    says("bfloat16")
    synthesize_train(halved, AGAIN)
    first, second = (load_synthesis(options.out) for options in (whole, halved))
    assert second.provenance["training"]["precision"] == "float32"
    assert same(first.generator, second.generator)


def test_pairs_go_on_in_the_precision_that_they_began_with(tmp_path: Path, says: Says) -> None:
    folder = stored_synthesis(tmp_path / "synthesis")
    options = GenerateOptions(synthesis=folder, out=str(tmp_path / "pairs"), images=1, size=64)
    says("bfloat16")
    generate(options, SERIAL)
    before = files_of(tmp_path / "pairs/00000.zarr")
    says("float32")
    generate(options, AGAIN)
    about = json.loads((tmp_path / "pairs/pairs.json").read_text())
    assert (about["precision"], files_of(tmp_path / "pairs/00000.zarr")) == ("bfloat16", before)
    generate(replace(options, out=str(tmp_path / "others")), SERIAL)
    assert files_of(tmp_path / "others/00000.zarr") != before  # control


def test_classes_go_on_in_the_precision_that_they_began_with(tmp_path: Path, done: Path, says: Says) -> None:
    shutil.copytree(done / "image.zarr", tmp_path / "image.zarr")
    image = str(tmp_path / "image.zarr")
    says("bfloat16")
    apply_classes(image, "nuclei", str(done / "classes"), replace(SERIAL, overwrite=True))
    assert recorded(image, "classify-nuclei") == "bfloat16"
    says("float32")
    apply_classes(image, "nuclei", str(done / "classes"), AGAIN)
    assert recorded(image, "classify-nuclei") == "bfloat16"


def test_a_classifier_says_in_which_precision_it_learned(tmp_path: Path, done: Path, says: Says) -> None:
    image, marks = str(done / "image.zarr"), str(done / "classes.csv")
    learned = {}
    for name in OTHER:
        says(name)
        train_classes(image, "nuclei", marks, str(tmp_path / name), ClassifyOptions(steps=2, hold_out=0))
        learned[name] = load_classifier(str(tmp_path / name))
        assert learned[name].provenance["options"]["precision"] == name
    weights = [classifier.weights["cnn_layers.0.weight"] for classifier in learned.values()]
    assert not np.array_equal(*weights)


def test_a_forest_has_no_precision_and_nothing_is_measured(
    tmp_path: Path, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "measure_rates", lambda device, use: pytest.fail("measured"))
    image, marks, out = str(done / "image.zarr"), str(done / "classes.csv"), str(tmp_path / "forest")
    options = ClassifyOptions(kind="random-forest", hold_out=0)
    train_classes(image, "nuclei", marks, out, options)
    with pytest.raises(InputError, match="precision bfloat16 for random-forest"):
        train_classes(image, "nuclei", marks, out, replace(options, precision="bfloat16"), overwrite=True)
    with pytest.raises(InputError, match="precision bfloat16 for random-forest"):
        apply_classes(image, "nuclei", out, precision="bfloat16")


def test_the_recipe_holds_what_was_settled(says: Says) -> None:
    says("bfloat16")
    assert recipe_of(SegmentOptions()).precision == "bfloat16"
    assert recipe_of(SegmentOptions(precision="float32"), kept=lambda: "bfloat16").precision == "float32"
    assert recipe_of(SegmentOptions(), kept=lambda: "float32").precision == "float32"


def test_a_slow_precision_is_named_once_on_stderr(says: Says, caplog: pytest.LogCaptureFixture) -> None:
    says("float32")
    work._warn.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert work.settle_precision("bfloat16", "cpu") == "bfloat16"
    (record,) = caplog.records
    assert "bfloat16 is 2.0 times slower than float32 on this processor" in record.getMessage()


def test_a_training_says_that_its_precision_is_slow(tmp_path: Path, says: Says) -> None:
    says("float32")
    said: list[str] = []
    train(small_training(tmp_path, image_and_sketch(tmp_path), precision="bfloat16", steps=1), on_step=said.append)
    assert sum("2.0 times slower" in line for line in said) == 1
    found = read_state(str(tmp_path / "model/run"))
    assert found is not None
    assert found[1]["config"]["precision"] == "bfloat16"


def test_the_doctor_names_instruction_sets_limits_rates_and_choices(
    says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    says("bfloat16")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    lines: dict[str, dict[str, Any]] = {check["name"]: check for check in examine()}
    assert "torch uses" in lines["processor"]["found"]
    assert "limited by ATEN_CPU_CAPABILITY=avx2" in lines["processor"]["found"]
    assert lines["processor"]["fix"] == "unset ATEN_CPU_CAPABILITY"
    for use in ("inference", "training"):
        found = lines[f"precision of {use} on cpu"]["found"]
        assert found == "auto is bfloat16 (float32 4 GFLOP/s, bfloat16 8 GFLOP/s)"


def test_instruction_sets_are_those_of_the_processor() -> None:
    assert instruction_sets("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx_tile\n") == [
        "AVX2", "AVX-512", "AVX-512 bf16", "AMX"
    ]  # fmt: skip
    assert instruction_sets("Features\t: fp asimd bf16\n") == ["NEON", "Arm bf16"]
    assert instruction_sets("") == []
