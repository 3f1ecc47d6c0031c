"""Model folders: the round trip, and one line for everything that is not one."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from sketchscale.errors import InputError, MissingDataError, OutputError
from sketchscale.networks import NetworkConfig, create_network
from sketchscale.networks.checkpoint import ModelConfig, load_model, save_model, shipped_models
from tests.pipeline import make_model

CONFIG = ModelConfig(network=NetworkConfig(channels=2, widths=(4, 6)), threshold=0.0, min_size=7, notes="ü")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", create_network(CONFIG.network, seed=1).eval(), CONFIG, {"made": "here"})
    return tmp_path / "model"


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_was_saved_is_loaded(tmp_path: Path, dtype: torch.dtype) -> None:
    network = create_network(CONFIG.network, seed=1).eval()
    digest = save_model(tmp_path / "m", network, CONFIG, {"made": "here"}, dtype=dtype)
    model = load_model(tmp_path / "m")
    assert (model.config, model.sha256, model.provenance["made"]) == (CONFIG, digest, "here")
    assert not model.network.training
    image = torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        difference = (model.network(image) - network(image)).abs().max()
    assert difference <= (0 if dtype == torch.float32 else 0.02)


def test_a_threshold_of_zero_stays_zero(folder: Path) -> None:
    assert load_model(folder).config.threshold == 0.0


def test_saving_again_replaces_the_model(folder: Path) -> None:
    before = load_model(folder).sha256
    save_model(folder, create_network(CONFIG.network, seed=2), CONFIG, {})
    assert load_model(folder).sha256 != before
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors", "provenance.json"]


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert "is not a model" in refusal(tmp_path)
    with pytest.raises(MissingDataError, match="no model 'nuclei-flou'; did you mean 'nuclei-fluo'"):
        load_model("nuclei-flou")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "provenance.json"])
def test_a_missing_or_damaged_file_is_refused(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    refusal(folder)
    (folder / name).write_bytes(b"\xff\x00[]")
    refusal(folder)
    (folder / name).unlink()
    refusal(folder)


def test_a_flipped_bit_is_noticed(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(data))
    assert "SHA-256" in refusal(folder)


def replace_weights(folder: Path, data: bytes) -> None:
    """As someone would who edits a model by hand: the digest fits."""
    settings = json.loads((folder / "config.json").read_text())
    settings["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "model.safetensors").write_bytes(data)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    other = create_network(NetworkConfig(channels=3, widths=(4, 6))).state_dict()
    replace_weights(folder, safetensors.torch.save(other))
    assert "do not fit" in refusal(folder)


def test_weights_that_are_no_numbers_are_refused(folder: Path) -> None:
    weights = create_network(CONFIG.network).state_dict()
    weights["head.2.bias"][0] = np.nan
    replace_weights(folder, safetensors.torch.save(weights))
    assert "NaN" in refusal(folder)


def test_a_pickle_is_refused_and_not_run(folder: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "owned",)  # type: ignore[return-value]

    replace_weights(folder, pickle.dumps(Evil()))
    assert "not a safetensors file" in refusal(folder)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "change", [{"networks": 1}, {"network": {"widths": []}}, {"network": 3}, {"threshold": "high"}, {"low": 99.9}]
)
def test_a_configuration_that_makes_no_sense_is_refused(folder: Path, change: dict[str, object]) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, **change}))
    refusal(folder)


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="writable"):
        save_model(tmp_path / "file" / "model", create_network(CONFIG.network), CONFIG, {})


@pytest.mark.parametrize("name", shipped_models() or ["none"])
def test_shipped_models_load_by_name(name: str) -> None:
    if name == "none":
        pytest.skip("this build ships no model")
    model = load_model(name)
    with torch.inference_mode():
        out = model.network(torch.zeros(1, model.config.network.channels, 64, 64))
    assert torch.isfinite(out).all()
    assert out[0, 2].mean() < model.config.threshold


@pytest.mark.parametrize(("saddle", "prominence"), [(1.0, -8.0), (0.75, ModelConfig().prominence)])
def test_a_model_of_the_old_rule_of_joining_is_read(tmp_path: Path, saddle: float, prominence: float) -> None:
    folder = make_model(tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "config.json").read_text())
    del settings["prominence"]
    (tmp_path / "model" / "config.json").write_text(json.dumps({**settings, "saddle": saddle}))
    assert load_model(folder).config.prominence == prominence
