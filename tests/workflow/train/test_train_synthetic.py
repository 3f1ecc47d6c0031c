"""`train --synthetic` through the command and the workflow: from a synthesis, from pairs, beside sketches, anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sketchscale.cli import run
from sketchscale.config import Execution, TrainOptions, parse
from sketchscale.errors import InputError, ResumeError
from sketchscale.geometry import whole
from sketchscale.io.ome_zarr.arrays import read_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.stores.blobs import list_blobs
from sketchscale.io.stores.output_files import put_file
from sketchscale.networks.checkpoint import load_model
from sketchscale.synthesis.model import copy_synthesis, load_synthesis, save_synthesis
from sketchscale.synthesis.pairs import draw_pair
from sketchscale.training.config import SyntheticConfig, TrainingConfig
from sketchscale.workflow.synthesize.generate import GenerateOptions, generate
from sketchscale.workflow.synthesize.scenes import check_sources, open_sources, stream_of
from sketchscale.workflow.train.train import train
from tests.synthesis.tiny import stored_synthesis
from tests.workflow.train.test_train import RESUME, image_and_sketch, lines, small

SERIAL = Execution(engine="serial")


@pytest.fixture(scope="module")
def synthesis(tmp_path_factory: pytest.TempPathFactory) -> str:
    return stored_synthesis(tmp_path_factory.mktemp("synthesis") / "one", channels=1)


@pytest.fixture(scope="module")
def pairs(synthesis: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Five pairs of 96 px."""
    out = str(tmp_path_factory.mktemp("pairs") / "five")
    generate(GenerateOptions(synthesis=synthesis, out=out, images=5, size=96, labels="cells"), SERIAL)
    return out


def weights(address: str) -> dict[str, torch.Tensor]:
    return load_model(address).network.state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("kind", ["synthesis", "pairs"])
def test_scenes_alone_make_a_model_that_says_where_it_is_from(
    tmp_path: Path, synthesis: str, pairs: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--steps", "3", "--patch", "32", "--batch", "2", "--width", "4", "--preview-every", "2", "--threads", "1"]
    address, out = {"synthesis": synthesis, "pairs": pairs}[kind], tmp_path / "model"
    assert run(["train", "--synthetic", address, "--out", str(out), *given]) == 0
    assert "3 steps" in capsys.readouterr().out
    model = load_model(out)
    (source,) = model.provenance["synthetic"]
    assert source["kind"] == kind
    assert model.provenance["training"]["synthetic"] == {"sha256": [source["sha256"]], "share": 1.0}
    assert model.provenance["options"]["synthetic"] == [address]
    assert (model.provenance["images"], model.provenance["sketches"]) == (0, [])
    assert model.provenance["calibrated"]["windows"] == 8
    assert {p.name for p in (out / "run").glob("*.png")} == {"loss.png", "preview_000002.png", "preview_000003.png"}


@pytest.mark.parametrize("kind", ["synthesis", "pairs"])
def test_an_interrupted_training_on_sketches_and_scenes_ends_with_the_same_model(
    tmp_path: Path, synthesis: str, pairs: str, kind: str
) -> None:
    pair = image_and_sketch(tmp_path)
    options = small(tmp_path, pair, synthetic=({"synthesis": synthesis, "pairs": pairs}[kind],))
    train(options, SERIAL)
    train(replace(options, synthetic=(), out=str(tmp_path / "plain")), SERIAL)
    cut = replace(options, out=str(tmp_path / "cut"))

    def interrupt(line: str) -> None:
        if line.startswith("step 1 "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(cut, SERIAL, on_step=interrupt)
    with pytest.raises(ResumeError, match="differs in synthetic"):
        train(replace(cut, synthetic_share=0.6), RESUME)
    with pytest.raises(ResumeError, match="differs in synthetic"):
        train(replace(cut, synthetic=()), RESUME)
    train(cut, RESUME)
    assert same(weights(cut.out), weights(options.out))
    assert not same(weights(str(tmp_path / "plain")), weights(options.out))
    assert load_model(cut.out).provenance["training"]["synthetic"]["share"] == 0.5
    assert lines(tmp_path)[0]["annotation"]


def test_held_out_strokes_are_scored_while_scenes_are_taught(tmp_path: Path, synthesis: str) -> None:
    options = small(tmp_path, image_and_sketch(tmp_path), synthetic=(synthesis,), hold_out=0.3, validate_every=2)
    train(options, SERIAL)
    assert sum(line["score"] is not None for line in lines(tmp_path)) == 2
    with pytest.raises(InputError, match="--hold-out without images"):
        train(replace(options, images=(), sketches=(), out=str(tmp_path / "other")), SERIAL)


def test_other_images_are_scored_and_calibrated_on_while_scenes_alone_are_taught(
    tmp_path: Path, synthesis: str
) -> None:
    image, sketch = image_and_sketch(tmp_path)
    options = small(tmp_path, synthetic=(synthesis,), validate=(image,), validate_sketches=(sketch,), validate_every=4)
    train(options, SERIAL)
    assert lines(tmp_path)[-1]["score"] < 0
    assert load_model(options.out).provenance["calibrated"]["windows"] == 1, "the image's, not the scenes'"


def test_scenes_and_model_may_be_in_a_bucket(tmp_path: Path, s3: str, synthesis: str, pairs: str) -> None:
    copied = copy_synthesis(synthesis, f"{s3}/synthesis")
    for path in Path(pairs).rglob("*"):
        if path.is_file() and ".sketchscale" not in path.parts:
            put_file(f"{s3}/pairs/{path.relative_to(pairs).as_posix()}", path.read_bytes())
    here = train(small(tmp_path, synthetic=(synthesis, pairs), preview_every=0), SERIAL).model
    there = train(small(tmp_path, synthetic=(copied, f"{s3}/pairs"), out=f"{s3}/model", preview_every=0), SERIAL).model
    assert same(weights(here), weights(there))
    assert "model.safetensors" in list_blobs(there, "")


@pytest.mark.nightly
@pytest.mark.parametrize("engine", ["torchrun", "ray"])
def test_two_processes_learn_what_one_does(tmp_path: Path, synthesis: str, pairs: str, engine: str) -> None:
    pytest.importorskip("ray")
    from tests.training.test_ray_train import RAY, ended, torchrun

    given = ["--synthetic", synthesis, "--synthetic", pairs, "--steps", "6", "--batch", "4", "--patch", "32"]
    given += ["--width", "4", "--precision", "float32", "--threads", "1", "--preview-every", "0"]
    assert run(["train", *given, "--out", str(tmp_path / "one")]) == 0
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    process = subprocess.Popen(
        [sys.executable, *(RAY if engine == "ray" else torchrun()), *given, "--out", str(tmp_path / "two")],
        env={**environment, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    code, _, said = ended(process, time.monotonic())
    assert code == 0, said
    one, two = (load_model(tmp_path / name).provenance for name in ("one", "two"))
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["synthetic"] == two["synthetic"]
    np.testing.assert_allclose(two["curve"]["loss"], one["curve"]["loss"], rtol=5e-3)


# ---- what scenes are


CONFIG = TrainingConfig(patch=32, seed=7)


def stream(*addresses: str, config: TrainingConfig = CONFIG) -> Any:
    sources = open_sources(addresses, None)
    synthetic = SyntheticConfig(sha256=tuple(source.sha256 for source in sources))
    config = replace(config, synthetic=synthetic)
    check_sources(sources, config)
    return stream_of(sources, config)


def test_a_made_scene_is_the_pair_of_its_number(synthesis: str) -> None:
    for number in (0, 3):
        scene = stream(synthesis).scene(number)
        pair = draw_pair(load_synthesis(synthesis), (64, 64), seed=(7, number))
        np.testing.assert_array_equal(scene.image, pair.image)
        np.testing.assert_array_equal(scene.labels, pair.labels)


def test_stored_pairs_come_in_random_order_each_once_before_any_comes_again(pairs: str) -> None:
    scenes = [stream(pairs).scene(number) for number in range(10)]
    names = [scene.name for scene in scenes]
    assert len(set(names[:5])) == len(set(names[5:])) == 5
    assert names[:5] != sorted(names[:5]) or names[5:] != sorted(names[5:])
    image = open_image(Path(pairs) / "00002.zarr")
    scene = next(s for s in scenes if "00002.zarr" in s.name)
    labels = read_box(image.label_ref("cells"), whole((96, 96)))
    pixels = read_box(image.array(), whole((1, 96, 96))).astype(float)
    low, high = np.percentile(pixels, (1.0, 99.8))
    np.testing.assert_array_equal(scene.labels, labels)
    np.testing.assert_allclose(scene.image, (pixels - low) / (high - low), atol=0.02)


def test_sources_take_turns(synthesis: str, pairs: str) -> None:
    both = stream(synthesis, pairs)
    assert [both.scene(n).name.split()[0] == "scene" for n in range(4)] == [True, False, True, False]
    np.testing.assert_array_equal(both.scene(6).image, stream(synthesis).scene(3).image)


# ---- what is refused


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--synthetic", "{folder}/nothing"], "nothing has neither synthesis.json nor pairs.json"),
        (["--synthetic", "{folder}/torn"], "torn/synthesis.safetensors is absent or not the one of synthesis.json"),
        (["--synthetic", "{folder}/empty"], "pairs.json does not say how many images there are"),
        (["--synthetic", "{synthesis}", "--synthetic-share", "0"], "a share of 0 synthetic patches"),
        (["--synthetic", "{synthesis}", "--synthetic", "{folder}/color"], "color has 3 channels; expected: 1"),
        (["{image}", "--sketch", "{sketch}", "--synthetic", "{folder}/color"], "color has 3 channels; expected: 1"),
        (["{image}", "--synthetic", "{synthesis}"], "1 images and 0 sketches"),
        ([], "found no image"),
        (["--synthetic", "{synthesis}", "--synthetic", "{folder}/scaled"], "scaled by their percentiles (2.0, 98.0)"),
    ],
)
def test_what_cannot_be_learned_from_is_one_line(
    tmp_path: Path, synthesis: str, given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image, sketch = image_and_sketch(tmp_path) if "{image}" in given else ("", "")
    prepare_bad(tmp_path, synthesis)
    places = {"folder": tmp_path, "synthesis": synthesis, "image": image, "sketch": sketch}
    command = ["train", *(part.format(**places) for part in given), "--out", str(tmp_path / "model"), "--steps", "2"]
    if "share" in message:
        command = ["train", *image_options(tmp_path), *command[1:]]
    assert run([*command, "--patch", "32", "--width", "4", "--batch", "2"]) == 2
    said = capsys.readouterr().err
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert message.removeprefix("found ") in error
    assert said.endswith(f"{error}\n")
    assert "network of" not in said, "nothing was begun"
    assert not (tmp_path / "model").exists()


def image_options(folder: Path) -> list[str]:
    image, sketch = image_and_sketch(folder)
    return [image, "--sketch", sketch]


def prepare_bad(folder: Path, synthesis: str) -> None:
    (folder / "nothing").mkdir()
    (folder / "empty").mkdir()
    (folder / "empty" / "pairs.json").write_text("{}")
    stored_synthesis(folder / "color")
    found = load_synthesis(synthesis)
    save_synthesis(str(folder / "scaled"), replace(found, config=replace(found.config, low=2.0, high=98.0)))
    copy_synthesis(synthesis, str(folder / "torn"))
    (folder / "torn" / "synthesis.safetensors").write_bytes(b"half")


def test_the_scale_of_the_synthesis_becomes_the_models(tmp_path: Path, synthesis: str) -> None:
    prepare_bad(tmp_path, synthesis)
    options = small(tmp_path, synthetic=(str(tmp_path / "scaled"),), preview_every=0)
    model = load_model(train(options, SERIAL).model)
    assert (model.config.low, model.config.high) == (2.0, 98.0)


def test_a_study_file_may_name_syntheses() -> None:
    options = parse(TrainOptions, json.loads('{"synthetic": ["a"], "synthetic_share": 0.3}'), source="study.toml")
    assert (options.synthetic, options.synthetic_share) == (("a",), 0.3)
