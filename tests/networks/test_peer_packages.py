"""Against the programs' own network modules: the same outputs from the same file, both ways.

The modules are read out of the wheels that deploy/peers.txt names, in the folder `.peers` of the checkout or in
SKETCHSCALE_PEERS; without it these tests are skipped, and test_peers.py holds the same against a plain description.
"""

from __future__ import annotations

import os
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sketchscale.config import SegmentOptions
from sketchscale.errors import InputError
from sketchscale.networks import NetworkConfig
from sketchscale.networks.checkpoint import load_model
from sketchscale.networks.export import save_peer
from sketchscale.networks.peers import load_peer, network_of, read_checkpoint
from sketchscale.workflow.segment.arrays import fields_of_array
from tests.networks.test_adapt import start
from tests.pipeline import draw_nuclei

WHEELS = {
    "cellpose 1": ("cellpose-1.0.2", "cellpose"),
    "cellpose 2": ("cellpose-2.2.3", "cellpose"),
    "cellpose 3": ("cellpose-3.1.1.2", "cellpose"),
    "omnipose": ("cellpose_omni-0.9.1", "cellpose_omni"),
}
SIZES = ((64, 96), (224, 224), (97, 131))
WIDTHS = (32, 64, 128, 256)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network_class(program: str) -> Any:
    """CPnet of a wheel; what its module imports from its package, and does not use for this, is left empty."""
    wheel, package = WHEELS[program]
    folder = Path(os.environ.get("SKETCHSCALE_PEERS", Path(__file__).resolve().parents[2] / ".peers"))
    found = sorted(folder.glob(f"{wheel}-*.whl"))
    if not found:
        pytest.skip(f"{wheel} is not in {folder.name} (see deploy/peers.txt)")
    parent = types.ModuleType("peer_package")
    for name in ("transforms", "io", "dynamics", "utils"):
        setattr(parent, name, types.ModuleType(name))
    module = types.ModuleType("peer_package.resnet_torch")
    module.__package__ = "peer_package"
    source = zipfile.ZipFile(found[0]).read(f"{package}/resnet_torch.py")
    sys.modules["peer_package"] = parent
    try:
        exec(compile(source, f"{wheel}/resnet_torch.py", "exec"), module.__dict__)
    finally:
        del sys.modules["peer_package"]
    return module.CPnet


def random_network(program: str, channels: int, outputs: int, widths: tuple[int, ...] = WIDTHS, **how: Any) -> Any:
    """Random weights, and statistics of batch norm as after training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(channels + 10 * outputs)
        network = network_class(program)([channels, *widths], outputs, 3, **how)
        for name, value in network.state_dict().items():
            if "running_var" in name or (value.ndim == 1 and name.endswith("weight")):
                value.copy_(0.5 + torch.rand_like(value))
            elif "running_mean" in name or (value.ndim == 1 and name.endswith("bias")):
                value.copy_(0.2 * torch.randn_like(value))
    return network.eval()


def image(channels: int, size: tuple[int, ...]) -> torch.Tensor:
    """Sizes that 8 does not divide are continued as mirror images, as both programs do before the network."""
    pixels = np.random.default_rng(0).random((1, channels, *size), np.float32)
    return torch.from_numpy(np.pad(pixels, [(0, 0), (0, 0), *((0, -n % 8) for n in size)], mode="symmetric"))


def same(found: torch.nn.Module, expected: Any, x: torch.Tensor) -> None:
    with torch.inference_mode():
        ours, theirs = found(x), expected(x)[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert theirs.std() > 0.1


@pytest.mark.parametrize(
    ("program", "channels", "outputs"),
    [
        ("cellpose 1", 2, 3),
        ("cellpose 2", 2, 3),
        ("cellpose 3", 1, 3),
        ("cellpose 3", 2, 3),
        ("cellpose 3", 3, 3),
        ("cellpose 3", 2, 2),
        ("omnipose", 1, 4),
        ("omnipose", 2, 4),
        ("omnipose", 1, 3),
    ],
)
def test_a_file_the_program_saved_gives_its_outputs(tmp_path: Path, program: str, channels: int, outputs: int) -> None:
    network = random_network(program, channels, outputs)
    network.save_model(str(tmp_path / "weights"))
    checkpoint = read_checkpoint(tmp_path / "weights")
    assert len(network.state_dict()) == (311 if program in ("cellpose 1", "omnipose") else 313)
    assert checkpoint.network.channels == channels
    ours = network_of(checkpoint.network, checkpoint.weights)
    for size in SIZES if (program, channels) in (("cellpose 3", 2), ("omnipose", 2)) else SIZES[:1]:
        same(ours, network, image(channels, size))


def test_a_wrapped_half_precision_file_without_diameters_gives_nearly_its_outputs(tmp_path: Path) -> None:
    network = random_network("cellpose 3", 2, 3)
    halves = {f"module.{k}": v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    torch.save({"state_dict": {k: v for k, v in halves.items() if "diam" not in k}}, tmp_path / "weights")
    model, x = load_model(tmp_path / "weights"), image(2, (64, 96))
    network.load_state_dict({k.removeprefix("module."): v for k, v in halves.items()})
    same(model.network, network, x)
    assert model.config.diameter == 30


def test_volumes_of_omnipose(tmp_path: Path) -> None:
    network = random_network("omnipose", 1, 5, (4, 6, 8), dim=3)
    network.save_model(str(tmp_path / "weights"))
    same(load_model(tmp_path / "weights").network, network, image(1, (8, 16, 24)))


def test_an_omnipose_network_without_style(tmp_path: Path) -> None:
    network = random_network("omnipose", 2, 4, style_on=False)
    name = tmp_path / "cellpose_residual_on_style_off_concatenation_off_omni_nclasses_4_x"
    network.save_model(str(name))
    same(load_model(name).network, network, image(2, (64, 96)))


@pytest.mark.parametrize("how", [{"residual_on": False}, {"concatenation": True}])
def test_variants_that_are_not_supported_are_refused_by_name(tmp_path: Path, how: dict[str, bool]) -> None:
    random_network("cellpose 2", 2, 3, **how).save_model(str(tmp_path / "weights"))
    with pytest.raises(InputError, match=r"residual_off|concatenation_on"):
        load_model(tmp_path / "weights")


@pytest.mark.parametrize("style", [False, True])
@pytest.mark.parametrize("program", ["cellpose 2", "cellpose 3", "omnipose"])
def test_the_program_loads_a_model_of_ours_and_computes_the_same(tmp_path: Path, program: str, style: bool) -> None:
    model = start(NetworkConfig(channels=2, widths=(16, 32, 64, 128), style=style), flow_scale=5.0, threshold=0.0)
    save_peer(model, tmp_path / "weights", kind=program.split()[0])
    network = random_network(program, 2, 3)
    network.load_state_dict(torch.load(tmp_path / "weights", weights_only=True), strict=True)
    same(model.network, network, image(2, (64, 96)))


def test_the_programs_own_loader_takes_a_model_of_ours(tmp_path: Path) -> None:
    model = start(NetworkConfig(widths=(16, 32, 64, 128)), flow_scale=5.0, threshold=0.0, diameter=21.0)
    save_peer(model, tmp_path / "weights", kind="cellpose")
    network = random_network("cellpose 3", 2, 3)
    network.load_model(str(tmp_path / "weights"))
    assert float(network.diam_mean) == 21
    x = image(2, (64, 96))
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(x)[0], model.network(x[:, :1]), rtol=0, atol=1e-5)


def test_a_grey_image_gets_the_fields_of_the_programs_network_on_the_same_tile(tmp_path: Path) -> None:
    network = random_network("cellpose 3", 2, 3)
    network.save_model(str(tmp_path / "cyto_random"))
    pixels = draw_nuclei((224, 224))[None]
    low, high = np.percentile(pixels, [1, 99])
    tile = np.stack([(pixels[0].astype(np.float32) - np.float32(low)) / np.float32(high - low), np.zeros((224, 224))])
    with torch.inference_mode():
        expected = network(torch.from_numpy(tile.astype(np.float32))[None])[0][0]
        expected[:2] /= 5
    model = load_peer(tmp_path / "cyto_random")
    fields = fields_of_array(pixels, model, SegmentOptions(model=str(tmp_path / "cyto_random")))
    np.testing.assert_allclose(fields, expected.half().numpy(), rtol=2e-3, atol=1e-5)
