"""Training on images in a bucket, with its run folder and model there: the model of a training on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sketchscale.config import Execution
from sketchscale.errors import InputError, OutputExistsError
from sketchscale.io.stores.blobs import get_blob, list_blobs, put_blob
from sketchscale.networks.checkpoint import load_model
from sketchscale.workflow.train.train import train
from tests.workflow.train.test_train import RESUME, image_and_sketch, small


def upload(folder: str, address: str) -> str:
    for path in Path(folder).rglob("*"):
        if path.is_file():
            put_blob(address, path.relative_to(folder).as_posix(), path.read_bytes())
    return address


def test_an_interrupted_training_in_a_bucket_ends_with_the_model_of_one_in_a_folder(s3: str, tmp_path: Path) -> None:
    image, sketch = image_and_sketch(tmp_path)
    expected = load_model(train(small(tmp_path, (image, sketch))).model).network.state_dict()
    place = f"{s3}/models/a"
    options = small(tmp_path, (upload(image, f"{s3}/image.zarr"), sketch), out=place)

    def interrupt(line: str) -> None:
        if line.startswith("step 1 "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(options, Execution(engine="serial"), on_step=interrupt)
    assert list_blobs(place, "") == ["run/log.jsonl", "run/state.safetensors"]
    with pytest.raises(OutputExistsError, match="--resume"):
        train(options)
    result = train(options, RESUME)
    assert result.model == place
    found = load_model(place).network.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert {"run/loss.png", "run/preview_000004.png", "model.safetensors"} <= set(list_blobs(place, ""))
    log = get_blob(place, "run/log.jsonl")
    assert log is not None
    assert len(log.splitlines()) == 4


def test_a_stop_file_in_a_bucket_ends_training_with_a_model(s3: str, tmp_path: Path) -> None:
    options = small(tmp_path, image_and_sketch(tmp_path), out=f"{s3}/model", steps=500, preview_every=0)

    def stop(line: str) -> None:
        if line.startswith("step 1 "):
            put_blob(options.out, "run/stop", b"")

    result = train(options, on_step=stop)
    assert result.steps < 500
    assert "stop file" in result.summary
    assert get_blob(options.out, "run/stop") is None


def test_a_damaged_state_in_a_bucket_is_refused(s3: str, tmp_path: Path) -> None:
    options = small(tmp_path, image_and_sketch(tmp_path), out=f"{s3}/model")
    put_blob(options.out, "run/state.safetensors", b"no such thing")
    with pytest.raises(InputError, match=r"s3://.*state\.safetensors does not read"):
        train(replace(options, steps=2), RESUME)
