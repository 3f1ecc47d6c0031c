"""Every network of the table, and one that is nothing like them, through the suite."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import nn

from sketchscale.errors import InputError, UnknownNameError
from sketchscale.networks import NETWORKS, NetworkConfig, create_network
from sketchscale.networks.adapt import adapt_notes
from sketchscale.networks.checkpoint import Model, ModelConfig
from sketchscale.networks.export import save_peer
from tests.conformance.networks import NetworkSuite


class Plain(nn.Module):
    """Without batch norm, with a stride that its widths do not say: windows of 4 x 4 px, each on its own."""

    stride, context = 4, 3

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        width = config.widths[0]
        self.bytes_per_pixel = 4 * (config.outputs + width // 16 + 1)
        self.see, self.say = nn.Conv2d(config.channels, width, 4, stride=4), nn.Conv2d(width, 16 * config.outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pixel_shuffle(self.say(self.see(x).relu()), 4)

    def adapt(
        self, weights: dict[str, torch.Tensor], given: NetworkConfig, kept: Mapping[int, float]
    ) -> dict[str, torch.Tensor]:
        adapted = {k: v.clone() for k, v in self.state_dict().items()}
        channels = min(given.channels, adapted["see.weight"].shape[1])
        adapted["see.weight"][:, channels:] = 0
        adapted["see.weight"][:, :channels] = weights["see.weight"][:, :channels]
        adapted["see.bias"] = weights["see.bias"]
        for row, scale in kept.items():
            for name in ("say.weight", "say.bias"):
                adapted[name][16 * row : 16 * row + 16] = weights[name][16 * row : 16 * row + 16] / scale
        return adapted


class TestUNet(NetworkSuite):
    config = NetworkConfig(widths=(4, 6, 8))


class TestPlain(NetworkSuite):
    config = NetworkConfig(name="plain", widths=(32,))

    @pytest.fixture(autouse=True)
    def _in_the_table(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(NETWORKS, "plain", Plain)

    def test_it_has_no_buffers_and_another_stride_than_its_widths_say(self) -> None:
        assert not list(create_network(self.config).buffers())
        assert create_network(self.config).stride != 1 << (len(self.config.widths) - 1)

    def test_another_kind_of_network_is_no_start_for_it_and_the_other_way_round(self) -> None:
        start = NetworkConfig(widths=(32,))
        model = Model(network=create_network(start).eval(), config=ModelConfig(network=start), provenance={})
        with pytest.raises(InputError, match=r"name unet; expected: name plain, .*--network unet"):
            adapt_notes(model, self.config)

    def test_no_other_program_has_it(self, taught: Model, tmp_path) -> None:
        with pytest.raises(InputError, match="a plain of the target flow; expected: flow and distance of a unet"):
            save_peer(taught, tmp_path / "plain", kind="omnipose")
        assert not any(tmp_path.glob("plain"))


def test_every_network_of_the_table_has_a_suite() -> None:
    assert {suite.config.name for suite in NetworkSuite.__subclasses__()} >= set(NETWORKS)


def test_impossible_shapes_and_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="levels"):
        NetworkConfig(widths=())
    with pytest.raises(InputError, match="0 channels"):
        NetworkConfig(channels=0)
    with pytest.raises(UnknownNameError, match="unet"):
        create_network(NetworkConfig(name="unnet"))
