"""A synthesis as a folder: two networks, the density of points, options of layouts. Loading runs no code.

<synthesis>/synthesis.safetensors   weights of the generator `g` and of the mask network `f`, float32
<synthesis>/points.npz              the density model, see points.py
<synthesis>/synthesis.json          SynthesisConfig, and the SHA-256 of the weights; written last
<synthesis>/provenance.json         how it was made
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pydantic
import safetensors.torch
from torch import nn

from sketchscale.errors import InputError, MissingDataError
from sketchscale.io.runs.partial_results import get_arrays, put_arrays
from sketchscale.io.stores.addresses import join_address
from sketchscale.io.stores.blobs import get_blob, put_blob
from sketchscale.networks import NetworkConfig, create_network
from sketchscale.networks.checkpoint import load_weights, parse_settings, settings_bytes
from sketchscale.synthesis.layouts import LayoutPrior
from sketchscale.synthesis.networks import MAPS, Generator, GeneratorConfig
from sketchscale.synthesis.points import PointModel

__all__ = [
    "Synthesis",
    "SynthesisConfig",
    "copy_synthesis",
    "is_synthesis",
    "load_synthesis",
    "mask_network",
    "save_synthesis",
    "synthesis_sha256",
]

WEIGHTS, POINTS, SETTINGS, PROVENANCE = "synthesis.safetensors", "points.npz", "synthesis.json", "provenance.json"
_REMEDY = "expected: a folder that `sketchscale synthesize train` wrote; to fix: copy it again, or train it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesisConfig:
    """Everything that is needed to use the weights.

    Attributes:
        generator, mask_widths, prior: see GanConfig.
        low, high: percentiles of each image, per channel, that became -1 and 1.
        crop: side of the training crops, px; scenes of this size and larger look right.
    """

    __pydantic_config__ = pydantic.ConfigDict(extra="forbid")

    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    mask_widths: tuple[int, ...] = (8, 16, 32, 64)
    prior: LayoutPrior = field(default_factory=LayoutPrior)
    low: float = 1.0
    high: float = 99.8
    crop: int = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesis:
    """Both networks in evaluation mode on the CPU, and the model from which layouts are drawn."""

    config: SynthesisConfig
    generator: Generator
    masker: nn.Module
    points: PointModel
    provenance: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""


def mask_network(channels: int, widths: tuple[int, ...], seed: int = 0) -> nn.Module:
    """Return the network from images to maps: a U-Net of this project with the maps as outputs."""
    return create_network(NetworkConfig(channels=channels, widths=widths, outputs=MAPS), seed=seed)


def save_synthesis(folder: str, synthesis: Synthesis) -> str:
    """Write a folder, replacing an earlier one, and return the SHA-256 of the weights.

    Raises:
        OutputError: the folder cannot be written.
    """
    nets = nn.ModuleDict({"g": synthesis.generator, "f": synthesis.masker})
    data = safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in nets.state_dict().items()})
    digest = hashlib.sha256(data).hexdigest()
    put_blob(folder, WEIGHTS, data)
    put_arrays(folder, POINTS, synthesis.points.arrays())
    put_blob(folder, PROVENANCE, settings_bytes(synthesis.provenance))
    put_blob(folder, SETTINGS, settings_bytes({**asdict(synthesis.config), "sha256": digest}))
    return digest


def is_synthesis(folder: str) -> bool:
    """Return whether a folder or address contains a synthesis, not pairs that one has generated."""
    return get_blob(folder, SETTINGS) is not None


def synthesis_sha256(folder: str) -> str:
    """Return the SHA-256 of everything on which pairs depend: settings, weights, density of points. Checks nothing.

    Raises:
        MissingDataError: there is no synthesis.
    """
    _read_json(folder, SETTINGS)
    parts = (get_blob(folder, name) or b"" for name in (SETTINGS, WEIGHTS, POINTS))
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def copy_synthesis(folder: str, target: str) -> str:
    """Copy the files, byte by byte, to a folder that every worker can read, and return its address.

    Raises:
        MissingDataError: the synthesis or part of it is missing.
        OutputError: the copy cannot be written.
    """
    for name in (WEIGHTS, POINTS, PROVENANCE, SETTINGS):
        data = get_blob(folder, name)
        if data is None:
            raise MissingDataError(f"{folder} is no synthesis: {name} is missing; {_REMEDY}")
        put_blob(target, name, data)
    return target


def load_synthesis(folder: str) -> Synthesis:
    """Load a synthesis, ready for use on the CPU.

    Raises:
        MissingDataError: there is none.
        InputError: it is damaged or not a synthesis.
    """
    settings = _read_json(folder, SETTINGS)
    digest = settings.pop("sha256", None)
    try:
        config = pydantic.TypeAdapter(SynthesisConfig).validate_python(settings)
    except (pydantic.ValidationError, InputError) as error:
        raise InputError(f"{folder}/{SETTINGS}: {str(error).splitlines()[-1].strip()}; {_REMEDY}") from error
    data = get_blob(folder, WEIGHTS)
    if data is None or hashlib.sha256(data).hexdigest() != digest:
        raise InputError(f"{folder}/{WEIGHTS} is absent or not the one of {SETTINGS}; {_REMEDY}")
    nets = nn.ModuleDict(
        {"g": Generator(config.generator), "f": mask_network(config.generator.channels, config.mask_widths)}
    )
    load_weights(nets, data, join_address(folder, WEIGHTS), _REMEDY)
    try:
        points = PointModel.of(get_arrays(folder, POINTS))
    except (KeyError, ValueError) as error:
        raise InputError(f"{folder}/{POINTS} holds no density of points; {_REMEDY}") from error
    generator = nets["g"]
    assert isinstance(generator, Generator)
    return Synthesis(
        config=config,
        generator=generator,
        masker=nets["f"],
        points=points,
        provenance=_read_json(folder, PROVENANCE),
        sha256=str(digest),
    )


def _read_json(folder: str, name: str) -> dict[str, Any]:
    data = get_blob(folder, name)
    if data is None:
        raise MissingDataError(f"{folder} is no synthesis: {name} is missing; {_REMEDY}")
    return parse_settings(data, join_address(folder, name), _REMEDY)
