"""Files of Cellpose and Omnipose: recognised by content, computed as described, refused by name; none is ever run."""

from __future__ import annotations

import hashlib
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from sketchscale.errors import InputError, MissingDataError, UnknownNameError
from sketchscale.networks.checkpoint import load_model
from sketchscale.networks.peers import load_peer, network_of, read_checkpoint
from tests.oracles.cpnet import State, forward, random_state

FULL = (32, 64, 128, 256)


def saved(folder: Path, content: Any, name: str = "weights") -> Path:
    torch.save(content, folder / name)
    return folder / name


def image(channels: int, *size: int) -> torch.Tensor:
    return torch.rand((2, channels, *size), generator=torch.Generator().manual_seed(3))


def output(network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """In float64, as the oracle."""
    with torch.inference_mode():
        result: torch.Tensor = network.double()(x.double())
    return result


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    assert "to fix" in str(caught.value)
    return str(caught.value)


def test_the_full_network_has_the_entries_and_parameters_of_the_saved_files(tmp_path: Path) -> None:
    state = random_state(widths=FULL)
    assert (len(state), len(random_state(widths=FULL, diameters=False))) == (313, 311)
    model = load_model(saved(tmp_path, state))
    assert sum(p.numel() for p in model.network.parameters()) == 6_600_843
    assert model.config.network.widths == FULL


@pytest.mark.parametrize(("channels", "outputs"), [(1, 2), (1, 3), (2, 3), (2, 4), (3, 4)])
@pytest.mark.parametrize("size", [(64, 96), (20, 28)])
def test_outputs_are_those_of_the_described_network(
    tmp_path: Path, channels: int, outputs: int, size: tuple[int, int]
) -> None:
    state = random_state(channels=channels, outputs=outputs)
    checkpoint = read_checkpoint(saved(tmp_path, state))
    network = network_of(checkpoint.network, checkpoint.weights)
    x = image(channels, *size)
    torch.testing.assert_close(output(network, x), forward(state, x), rtol=0, atol=1e-9)


def test_outputs_in_three_dimensions_are_those_of_the_described_network(tmp_path: Path) -> None:
    state = random_state(channels=1, outputs=5, dim=3)
    model = load_model(saved(tmp_path, state, "omni_3d"))
    x = image(1, 8, 16, 12)
    torch.testing.assert_close(output(model.network, x), forward(state, x), rtol=0, atol=1e-9)
    assert (model.config.network.dim, model.config.logit) == (3, False)


def test_reflect_padding_is_taken_from_the_name_or_the_caller(tmp_path: Path) -> None:
    state = random_state(channels=1, outputs=4)
    long = "cellpose_residual_on_style_on_concatenation_off_omni_abstract_nclasses_3_nchan_1_dim_2_cells"
    x = image(1, 24, 32)
    expected = forward(state, x, padding="reflect")
    for model in (load_peer(saved(tmp_path, state, long)), load_peer(saved(tmp_path, state, "x"), padding="reflect")):
        torch.testing.assert_close(output(model.network, x), expected, rtol=0, atol=1e-9)
        assert model.config.network.padding == "reflect"
        assert "padding reflect" in model.config.notes
    zeros = load_peer(tmp_path / long, padding="zeros")
    assert (output(zeros.network, x) - expected).abs().max() > 0.01
    assert any("as asked" in line for line in zeros.provenance["assumed"])


def test_a_name_with_style_off_means_that_the_style_vector_is_zero(tmp_path: Path) -> None:
    state = random_state()
    model = load_model(saved(tmp_path, state, "cellpose_residual_on_style_off_concatenation_off_x"))
    x = image(2, 24, 32)
    torch.testing.assert_close(output(model.network, x), forward(state, x, style_on=False), rtol=0, atol=1e-6)
    assert not model.config.network.style
    assert (forward(state, x) - forward(state, x, style_on=False)).abs().max() > 0.01


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "module.", "half", "double", "ordered", "legacy"])
def test_what_trainers_wrap_around_the_weights_is_taken_off(tmp_path: Path, wrapper: str) -> None:
    state = random_state()
    wrapped: Any = {
        "state_dict": {"state_dict": state, "epoch": 3},
        "model": {"model": state},
        "module.": {f"module.{k}": v for k, v in state.items()},
        "half": {k: v.half() if v.is_floating_point() else v for k, v in state.items()},
        "double": {k: v.double() if v.is_floating_point() else v for k, v in state.items()},
        "ordered": OrderedDict((k, torch.nn.Parameter(v, requires_grad=False)) for k, v in state.items()),
        "legacy": state,
    }[wrapper]
    path = tmp_path / "weights"
    torch.save(wrapped, path, _use_new_zipfile_serialization=wrapper != "legacy")
    model, x = load_model(path), image(2, 32, 32)
    assert all(v.dtype == torch.float32 for v in model.network.parameters())
    tolerance = 0.05 if wrapper == "half" else 1e-9
    torch.testing.assert_close(output(model.network, x), forward(state, x), rtol=0, atol=tolerance)


def test_settings_follow_the_program(tmp_path: Path) -> None:
    cellpose = load_model(saved(tmp_path, random_state(), "cyto3")).config
    assert (cellpose.low, cellpose.high, cellpose.threshold, cellpose.diameter) == (1, 99, 0, 30)
    assert (cellpose.flow_scale, cellpose.logit, cellpose.absent_channels, cellpose.prominence) == (5, True, 1, -8)
    omnipose = load_model(saved(tmp_path, random_state(diameters=False), "bact_phase_omnitorch_0")).config
    assert (omnipose.low, omnipose.high, omnipose.flow_scale, omnipose.logit) == (0.01, 99.99, 5, False)
    assert load_model(saved(tmp_path, random_state(outputs=4), "x")).config.logit is False
    assert load_peer(tmp_path / "cyto3", kind="omnipose").config.logit is False
    assert load_model(saved(tmp_path, random_state(channels=1), "gray")).config.absent_channels == 0
    nuclei = saved(tmp_path, random_state(diameters=False), "nucleitorch_0")
    assert load_model(nuclei).config.diameter == 17


def test_the_digest_is_that_of_the_file_and_provenance_says_what_was_concluded(tmp_path: Path) -> None:
    path = saved(tmp_path, random_state(), "cyto3")
    model = load_model(path)
    assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.provenance["source"] == {"program": "cellpose", "file": "cyto3", "sha256": model.sha256}
    assert model.provenance["diam_labels"] == 27.5
    assert not model.network.training


def edited(**changes: torch.Tensor | None) -> State:
    state = {**random_state(), **{k: v for k, v in changes.items() if v is not None}}
    return {k: v for k, v in state.items() if k not in changes or changes[k] is not None}


HEAD = "output.2.weight"
FIRST = "downsample.down.res_down_0.conv.conv_0.2.weight"
UP = "upsample.up.res_up_0.conv.conv_1.full.weight"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"W2": torch.zeros(3), "encoder.pos_embed": torch.zeros(3), "out.weight": torch.zeros(3)}, "Cellpose 4"),
        ({"net.encoder.x": torch.zeros(3), "diam_mean": torch.zeros(1)}, "transformer of Cellpose 3"),
        ({"encoder.x": torch.zeros(3), "decoder.x": torch.zeros(3)}, "transformer of Cellpose 3"),
        ({"downsample.down.conv_down_0.conv.conv_0.0.weight": torch.zeros(2)}, "residual_off"),
        ({"features.0.weight": torch.zeros(3)}, "another network"),
        ({}, "another network"),
        ([1, 2], "no mapping"),
        (torch.zeros(3), "no mapping"),
        ({"state_dict": 3}, "no mapping"),
        (edited(**{UP: torch.zeros(8, 8)}), "concatenation_on"),
        (edited(**{HEAD: None}), "dimensions"),
        (edited(**{HEAD: torch.zeros(3, 5, 1, 1)}), "1 weights do not fit"),
        (edited(**{FIRST: torch.zeros(4, 2, 3, 3, 3)}), "dimensions"),
        (edited(**{FIRST: torch.zeros(0, 2, 3, 3)}), "widths"),
        (edited(extra=torch.zeros(1)), "first extra"),
        (edited(**{"output.2.bias": torch.tensor([0.0, 0.0, torch.nan])}), "NaN"),
        (edited(**{"output.2.bias": torch.tensor([1, 2, 3])}), "int64"),
        (edited(**{"output.2.bias": torch.zeros(3, dtype=torch.complex64)}), "complex"),
        (edited(**{"output.2.bias": torch.zeros(3, device="meta")}), "plain tensor"),
        (edited(**{"output.2.bias": torch.zeros(3).to_sparse()}), "plain tensor"),
        (edited(**{"output.2.bias": torch.zeros(1).expand(3)}), "plain tensor"),
        (random_state(outputs=2), "2 outputs"),
    ],
)
def test_everything_else_is_refused_by_name(tmp_path: Path, content: object, said: str) -> None:
    assert said in refusal(saved(tmp_path, content))


def test_a_tensor_that_claims_more_than_the_file_holds_is_refused_before_it_is_made(tmp_path: Path) -> None:
    wide = torch.zeros(1).expand(10**6, 10**6, 3, 3)  # 36 TB
    assert "plain tensor" in refusal(saved(tmp_path, edited(**{FIRST: wide})))


def test_widths_that_would_fill_the_memory_are_refused_before_a_network_is_made(tmp_path: Path) -> None:
    widest = edited(**{FIRST: torch.zeros(10**5, 2, 3, 3, dtype=torch.float16)})
    assert "do not fit" in refusal(saved(tmp_path, widest))


class Evil:
    """Would make a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("form", ["torch", "legacy", "pickle", "inside"])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    evil, path = Evil(tmp_path / "owned"), tmp_path / "weights"
    if form == "pickle":
        path.write_bytes(pickle.dumps(evil))
    else:
        content = {**random_state(), "diam_mean": evil} if form == "inside" else evil
        torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
    assert "tensors only" in refusal(path)
    assert not (tmp_path / "owned").exists()


def test_control_the_hostile_pickle_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Evil(tmp_path / "owned")))
    assert (tmp_path / "owned").exists()


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, random_state())
    data = path.read_bytes()
    for damaged in (data[: len(data) // 2], data[:100], b"", b"hello", b"PK\x03\x04" + b"\0" * 100):
        path.write_bytes(damaged)
        assert "tensors only" in refusal(path)


def test_no_file_and_unknown_kinds_are_said(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="Cellpose 1 to 3"):
        load_peer(tmp_path / "absent")
    with pytest.raises(UnknownNameError, match="omnipose"):
        load_peer(saved(tmp_path, random_state()), kind="omnipos")
