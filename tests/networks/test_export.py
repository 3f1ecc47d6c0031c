"""Models of ours as files of Cellpose and Omnipose: the described network computes the same from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sketchscale.errors import InputError, OutputError, UnknownNameError
from sketchscale.networks import NetworkConfig
from sketchscale.networks.checkpoint import load_model
from sketchscale.networks.export import save_peer
from sketchscale.networks.model import Model
from sketchscale.networks.peers import PEER_WIDTHS
from tests.networks.test_adapt import start
from tests.networks.test_peers import image, output
from tests.oracles.cpnet import forward, random_state

PLAIN = NetworkConfig(channels=1, widths=(4, 6, 8))


def theirs(model: Model, path: Path, kind: str, x: torch.Tensor, **how: str) -> torch.Tensor:
    save_peer(model, path, kind=kind)
    return forward(torch.load(path, weights_only=True), x, **how)  # type: ignore[arg-type]


def in_their_units(model: Model, fields: torch.Tensor) -> torch.Tensor:
    fields, dim = fields.clone(), model.config.network.dim
    fields[:, :dim] *= 5 / model.config.flow_scale
    fields[:, dim] -= model.config.threshold
    return fields


@pytest.mark.parametrize("style", [False, True])
@pytest.mark.parametrize("kind", ["cellpose", "omnipose"])
def test_the_file_computes_what_the_model_does(tmp_path: Path, kind: str, style: bool) -> None:
    model, x = start(replace(PLAIN, style=style), threshold=-2.25), image(1, 32, 40)
    seen = torch.cat([x, torch.rand_like(x)], dim=1) if kind == "cellpose" else x
    found = theirs(model, tmp_path / "out", kind, seen)
    torch.testing.assert_close(found, in_their_units(model, output(model.network, x)), rtol=0, atol=1e-5)


def test_names_and_shapes_are_those_of_the_saved_files(tmp_path: Path) -> None:
    for kind, channels, diameters in (("cellpose", 2, True), ("omnipose", 1, False)):
        save_peer(start(PLAIN, diameter=19.0), tmp_path / kind, kind=kind)
        state = torch.load(tmp_path / kind, weights_only=True)
        wanted = random_state(channels=channels, widths=PLAIN.widths, diameters=diameters)
        assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in wanted.items()}
        assert all(state[k].dtype == wanted[k].dtype for k in wanted)
        if diameters:
            assert float(state["diam_mean"]) == float(state["diam_labels"]) == 19.0


@pytest.mark.parametrize("style", [False, True])
def test_a_narrow_network_of_four_levels_is_embedded_in_the_programs_own(tmp_path: Path, style: bool) -> None:
    narrow = replace(PLAIN, widths=(4, 6, 8, 10), style=style)
    model, x = start(narrow, threshold=-2.0), image(1, 32, 40)
    found = theirs(model, tmp_path / "out", "cellpose", torch.cat([x, x], dim=1))
    torch.testing.assert_close(found, in_their_units(model, output(model.network, x)), rtol=0, atol=1e-5)
    state = torch.load(tmp_path / "out", weights_only=True)
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in random_state(widths=PEER_WIDTHS).items()}
    assert not any("nbase" in line for line in save_peer(model, tmp_path / "out", kind="cellpose"))


def test_cellpose_gets_flow_and_distance_and_omnipose_all_outputs(tmp_path: Path) -> None:
    model, x = start(replace(PLAIN, channels=2, outputs=4)), image(2, 16, 16)
    assert theirs(model, tmp_path / "c", "cellpose", x).shape[1] == 3
    assert theirs(model, tmp_path / "o", "omnipose", x).shape[1] == 4


def test_volumes_and_mirrored_padding_go_to_omnipose_only(tmp_path: Path) -> None:
    mirrored, x = start(replace(PLAIN, padding="reflect")), image(1, 32, 32)
    found = theirs(mirrored, tmp_path / "o", "omnipose", x, padding="reflect")
    torch.testing.assert_close(found, in_their_units(mirrored, output(mirrored.network, x)), rtol=0, atol=1e-5)
    volume, x = start(replace(PLAIN, dim=3, outputs=4)), image(1, 8, 8, 8)
    found = theirs(volume, tmp_path / "v", "omnipose", x)
    torch.testing.assert_close(found, in_their_units(volume, output(volume.network, x)), rtol=0, atol=1e-5)
    for model in (mirrored, volume):
        with pytest.raises(InputError, match="--to omnipose"):
            save_peer(model, tmp_path / "c", kind="cellpose")
    assert not (tmp_path / "c").exists()


def test_a_file_that_comes_back_is_the_file_that_went(tmp_path: Path) -> None:
    state = random_state()
    torch.save(state, tmp_path / "cyto3")
    save_peer(load_model(tmp_path / "cyto3"), tmp_path / "again", kind="cellpose")
    again = torch.load(tmp_path / "again", weights_only=True)
    assert all(torch.equal(again[k], v) for k, v in state.items() if k != "diam_labels")
    assert again.keys() == state.keys()


def test_what_the_user_has_to_set_is_said(tmp_path: Path) -> None:
    said = "\n".join(save_peer(start(PLAIN, low=2.0, high=99.8), tmp_path / "c", kind="cellpose"))
    assert "[2, 99.8]" in said
    assert "nbase=[2, 4, 6, 8]" in said
    said = "\n".join(save_peer(start(PLAIN), tmp_path / "o", kind="omnipose"))
    assert "before 1.0" in said
    assert "nclasses=3 (from 1.0 on: 2)" in said


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = start(PLAIN)
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    save_peer(model, tmp_path / "c", kind="cellpose")
    assert all(torch.equal(v, before[k]) for k, v in model.network.state_dict().items())


def test_unknown_programs_and_places_that_cannot_be_written_are_said(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="cellpose"):
        save_peer(start(PLAIN), tmp_path / "x", kind="stardist")
    with pytest.raises(OutputError, match="--out"):
        save_peer(start(PLAIN), tmp_path / ("x" * 300), kind="cellpose")
