"""A model is a folder: weights, configuration, provenance. Nothing in it can run code.

    <model>/model.safetensors   weights, float16 or float32
    <model>/config.json         ModelConfig, and the SHA-256 of the weights
    <model>/provenance.json     how it was made: versions, training configuration, data, command

`load_model` takes a folder or the name of a shipped model (see `shipped_models`).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pydantic
import safetensors
import safetensors.torch
import torch
from torch import nn

from sketchscale.errors import InputError, MissingDataError, OutputError
from sketchscale.networks import NetworkConfig, create_network

__all__ = ["Model", "ModelConfig", "load_model", "save_model", "shipped_models"]

SHIPPED = Path(__file__).resolve().parents[1] / "models"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What it takes to use the weights.

    Attributes:
        network: shape of the network.
        low, high: percentiles of the image, per channel, that become 0 and 1.
        threshold: px; a pixel is foreground where the predicted distance is above it.
        min_size: px; smaller objects are dropped.
        link_radius, saddle: how end points and pieces of objects are joined (integration.IntegrationConfig): 2 and 0.75
            hold out against noisy flow; 1 and 1 part small objects that touch, where the flow is clean.
        outside: px, the distance taught in background.
        tile, overlap: px, of prediction; overlap is the least on each axis.
        diameter: px, the median of the training objects; for information and for the choice of a level.
        flow_scale: length of the flow that the network gives inside objects; fields are stored with length 1.
        logit: the third output is the logit of foreground, as Cellpose has it, and no distance in px.
        absent_channels: so many of the last channels an image may lack; they are fed as 0.
        notes: for people.
    """

    __pydantic_config__ = pydantic.ConfigDict(extra="forbid")

    network: NetworkConfig = field(default_factory=NetworkConfig)
    low: float = 1.0
    high: float = 99.8
    threshold: float = -2.0
    min_size: int = 20
    link_radius: int = 2
    saddle: float = 0.75
    outside: float = -5.0
    tile: int = 512
    overlap: int = 64
    diameter: float = 0.0
    flow_scale: float = 1.0
    logit: bool = False
    absent_channels: int = 0
    notes: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 100:
            raise InputError.of(
                found=f"percentiles {self.low} and {self.high}", expected="0 <= low < high <= 100", fix="1 and 99.8"
            )
        if not math.isfinite(self.threshold):
            raise InputError.of(found=f"threshold {self.threshold}", expected="a distance in px", fix="-2")
        if self.link_radius < 1 or not 0 <= self.saddle <= 1:
            raise InputError.of(
                found=f"link_radius {self.link_radius}, saddle {self.saddle}",
                expected="a radius of at least 1, a saddle from 0 to 1",
                fix="2 and 0.75",
            )
        if self.min_size < 0 or self.outside >= 0 or not 0 <= self.overlap < self.tile:
            raise InputError.of(
                found=f"min_size {self.min_size}, outside {self.outside}, tile {self.tile}, overlap {self.overlap}",
                expected="min_size >= 0, outside < 0, 0 <= overlap < tile",
                fix="leave out what is not meant",
            )
        if not 0 < self.flow_scale < math.inf or not 0 <= self.absent_channels < self.network.channels:
            raise InputError.of(
                found=f"flow_scale {self.flow_scale}, absent_channels {self.absent_channels}",
                expected="a positive flow_scale, fewer absent channels than channels",
                fix="1 and 0, unless the weights come from Cellpose or Omnipose",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A network ready to predict.

    Attributes:
        network: in evaluation mode, on the CPU, float32.
        sha256: of the file with the weights; empty for a model that was never saved.
    """

    network: nn.Module
    config: ModelConfig
    provenance: Mapping[str, Any]
    sha256: str = ""


def save_model(
    folder: str | Path,
    network: nn.Module,
    config: ModelConfig,
    provenance: Mapping[str, Any],
    *,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Write a model folder, replacing the files of one that is there; returns the SHA-256 of the weights.

    Args:
        dtype: of stored weights; float16 halves the file and changes outputs in the third digit.

    Raises:
        OutputError: the folder can't be written.
    """
    weights = {k: v.detach().cpu().to(dtype) if v.is_floating_point() else v for k, v in network.state_dict().items()}
    data = safetensors.torch.save({k: v.contiguous() for k, v in weights.items()}, metadata={"format": "pt"})
    digest = hashlib.sha256(data).hexdigest()
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / "model.safetensors", data)
        replace_file(folder / "provenance.json", _json(provenance))
        replace_file(folder / "config.json", _json({**asdict(config), "sha256": digest}))
    except OSError as error:
        raise OutputError(
            f"cannot write the model to {folder}: {error.strerror or error}; expected: a writable folder; "
            f"to fix: choose another --out"
        ) from error
    return digest


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def shipped_models() -> list[str]:
    """Names of the models in the package."""
    return sorted(p.parent.name for p in SHIPPED.glob("*/config.json"))


def load_model(address: str | Path) -> Model:
    """A model by folder, or by the name of a shipped one.

    Raises:
        MissingDataError: there is no such folder or name.
        InputError: the folder holds no model of ours, or a damaged one.
    """
    folder = _resolve(address)
    settings = _read_json(folder / "config.json")
    digest = settings.pop("sha256", None)
    config = _config(folder, settings)
    path = folder / "model.safetensors"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MissingDataError(f"{path}: {error.strerror}; {_REMEDY}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise InputError(f"{path}: its SHA-256 is not the one in config.json; {_REMEDY}")
    network = create_network(config.network)
    _load_weights(network, data, path)
    return Model(network=network, config=config, provenance=_read_json(folder / "provenance.json"), sha256=digest)


_CONFIG = pydantic.TypeAdapter(ModelConfig)
_REMEDY = "expected: a model folder as `sketchscale train` writes it; to fix: copy it again, or train it again"


def _resolve(address: str | Path) -> Path:
    folder = Path(address)
    if folder.is_dir():
        return folder
    if (SHIPPED / str(address) / "config.json").is_file():
        return SHIPPED / str(address)
    raise MissingDataError(
        f"no model {str(address)!r}; expected: a folder or one of {', '.join(shipped_models()) or '(none)'}; "
        f"to fix: check the path, or train one with `sketchscale train`"
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise MissingDataError(f"{path.parent} is not a model: {path.name} is missing; {_REMEDY}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} does not read ({type(error).__name__}); {_REMEDY}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no settings; {_REMEDY}")
    return value


def _config(folder: Path, settings: dict[str, Any]) -> ModelConfig:
    try:
        return _CONFIG.validate_python(settings)
    except (pydantic.ValidationError, InputError) as error:
        said = "; ".join(str(error).splitlines()[1:3]) if isinstance(error, pydantic.ValidationError) else str(error)
        raise InputError(f"{folder / 'config.json'} is not a model configuration ({said}); {_REMEDY}") from error


def _load_weights(network: nn.Module, data: bytes, path: Path) -> None:
    try:
        weights = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{path} is not a safetensors file ({error}); {_REMEDY}") from error
    wanted = network.state_dict()
    wrong = [
        k
        for k in sorted({*wanted, *weights})
        if k not in wanted or k not in weights or wanted[k].shape != weights[k].shape
    ]
    if wrong:
        raise InputError(
            f"{path}: {len(wrong)} weights do not fit the network of config.json, first {wrong[0]}; {_REMEDY}"
        )
    if not all(bool(torch.isfinite(v.float()).all()) for v in weights.values()):
        raise InputError(f"{path}: NaN or Inf among the weights; {_REMEDY}")
    network.load_state_dict({k: v.to(wanted[k].dtype) for k, v in weights.items()})
    network.eval().requires_grad_(False)
