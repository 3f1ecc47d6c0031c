"""Read and write model folders: weights, configuration, provenance. Nothing in a folder can run code.

    <model>/model.safetensors   weights, float16 or float32
    <model>/config.json         ModelConfig, and the SHA-256 of the weights
    <model>/provenance.json     how it was made: versions, training configuration, data, command

`load_model` takes a folder, the name of a model in the package, or a file of Cellpose or Omnipose (see peers.py).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import Any

import pydantic
import safetensors
import safetensors.torch
import torch
from torch import nn

from sketchscale.errors import InputError, MissingDataError, SketchscaleError, nearest
from sketchscale.io.stores.addresses import is_local, join_address
from sketchscale.io.stores.blobs import put_blob
from sketchscale.io.stores.output_files import get_file, has_file, put_file
from sketchscale.networks import create_network
from sketchscale.networks.model import Model, ModelConfig
from sketchscale.networks.peers import load_peer

__all__ = [
    "Model",
    "ModelConfig",
    "copy_model",
    "is_shipped",
    "load_model",
    "load_weights",
    "model_folder",
    "own_models",
    "parse_settings",
    "save_model",
    "settings_bytes",
    "shipped_models",
]

SHIPPED = Path(__file__).resolve().parents[1] / "models"
OWN = "SKETCHSCALE_MODELS"
"""The environment variable with a folder of the user's own models."""


def save_model(
    folder: str | Path,
    network: nn.Module,
    config: ModelConfig,
    provenance: Mapping[str, Any],
    *,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Write a model folder, replacing existing files, and return the SHA-256 of the weights.

    Args:
        folder: path, or address in object storage.
        dtype: of stored weights; float16 halves the file and changes outputs in the third digit.

    Raises:
        OutputError: the folder can't be written.
    """
    weights = {k: v.detach().cpu().to(dtype) if v.is_floating_point() else v for k, v in network.state_dict().items()}
    data = safetensors.torch.save({k: v.contiguous() for k, v in weights.items()}, metadata={"format": "pt"})
    digest = hashlib.sha256(data).hexdigest()
    files = {
        "model.safetensors": data,
        "provenance.json": settings_bytes(provenance),
        "config.json": settings_bytes({**asdict(config), "sha256": digest}),
    }
    for name, content in files.items():
        put_blob(str(folder), name, content)
    return digest


def settings_bytes(value: Mapping[str, Any]) -> bytes:
    """Return settings as JSON, as they are stored in a folder with weights."""
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def shipped_models() -> list[str]:
    """Return the names of the models in the package."""
    return sorted(p.parent.name for p in SHIPPED.glob("*/config.json"))


def own_models() -> dict[str, str]:
    """Return the user's models by name: the folders in the folder that the variable SKETCHSCALE_MODELS names.

    A shipped model of the same name goes before.
    """
    folder = os.environ.get(OWN, "")
    return {p.parent.name: str(p.parent) for p in sorted(Path(folder).glob("*/config.json"))} if folder else {}


def load_model(address: str | Path) -> Model:
    """Load a model from a folder, by the name of a shipped or own model, or from a file of Cellpose or Omnipose.

    Raises:
        MissingDataError: there is no such folder, file or name.
        InputError: the folder holds no model, or a damaged one; the file is not from Cellpose or Omnipose.
    """
    if _is_file(address):
        return load_peer(address)
    folder = _resolve(address)
    settings = _read_json(folder, "config.json")
    digest = settings.pop("sha256", None)
    config = _config(folder, settings)
    path = join_address(folder, "model.safetensors")
    try:
        data = get_file(path)
    except SketchscaleError:
        raise
    except OSError as error:
        raise MissingDataError(f"{path}: {error.strerror}; {_REMEDY}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise InputError(f"{path}: its SHA-256 is not the one in config.json; {_REMEDY}")
    network = create_network(config.network)
    load_weights(network, data, path, _REMEDY)
    return Model(network=network, config=config, provenance=_read_json(folder, "provenance.json"), sha256=digest)


def copy_model(address: str | Path, target: str) -> str:
    """Copy the files of a model, byte by byte, to a place that all workers can read; return the address of the copy.

    Args:
        address: as for `load_model`.
        target: address of a folder.

    Raises:
        MissingDataError: there is no such model.
        OutputError: the copy cannot be written.
    """
    if _is_file(address):
        return put_file(join_address(target, PurePath(address).name), get_file(address))
    folder = _resolve(address)
    for name in ("model.safetensors", "provenance.json", "config.json"):
        put_file(join_address(target, name), get_file(join_address(folder, name)))
    return target


_CONFIG = pydantic.TypeAdapter(ModelConfig)
_REMEDY = "expected: a model folder as `sketchscale train` writes it; to fix: copy it again, or train it again"


def is_shipped(address: str | Path) -> bool:
    """Whether a model comes with the package, and so is on every machine with the package."""
    return not Path(address).is_dir() and (SHIPPED / str(address) / "config.json").is_file()


def model_folder(address: str | Path) -> str | None:
    """Return the address of a model's folder; None for a single file.

    Raises:
        MissingDataError: there is no such model.
    """
    return None if _is_file(address) else _resolve(address)


def _is_file(address: str | Path) -> bool:
    """Whether an address is a file rather than a model folder; object storage has no folders to look for."""
    if is_local(address):
        return Path(address).is_file()
    return not has_file(join_address(address, "config.json")) and has_file(address)


def _resolve(address: str | Path) -> str:
    if not is_local(address) or Path(address).is_dir():
        return str(address)
    if is_shipped(address):
        return str(SHIPPED / str(address))
    own = own_models()
    if str(address) in own:
        return own[str(address)]
    known = sorted({*shipped_models(), *own})
    raise MissingDataError(
        f"no model {str(address)!r};{nearest(str(address), known)} expected: a folder, a file or one of "
        f"{', '.join(known)}; to fix: check the path, or train one with `sketchscale train`"
    )


def _read_json(folder: str, name: str) -> dict[str, Any]:
    path = join_address(folder, name)
    try:
        data = get_file(path)
    except FileNotFoundError as error:
        raise MissingDataError(f"{folder} is not a model: {name} is missing; {_REMEDY}") from error
    except SketchscaleError:
        raise
    except OSError as error:
        raise InputError(f"{path} does not read ({type(error).__name__}); {_REMEDY}") from error
    return parse_settings(data, path, _REMEDY)


def parse_settings(data: bytes, path: str, remedy: str) -> dict[str, Any]:
    """Parse the settings in a file of a folder with weights.

    Args:
        remedy: end of an error message: what is expected, and how to get it.

    Raises:
        InputError: the file holds no settings.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} does not read ({type(error).__name__}); {remedy}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no settings; {remedy}")
    return value


def _config(folder: str, settings: dict[str, Any]) -> ModelConfig:
    if "saddle" in settings:  # of 0.1: the share of a peak; 1 joined nothing
        joins = {} if settings["saddle"] < 1 else {"prominence": -8.0}
        settings = {**{name: value for name, value in settings.items() if name != "saddle"}, **joins}
    try:
        return _CONFIG.validate_python(settings)
    except (pydantic.ValidationError, InputError) as error:
        reason = "; ".join(str(error).splitlines()[1:3]) if isinstance(error, pydantic.ValidationError) else str(error)
        raise InputError(f"{folder}/config.json is not a model configuration ({reason}); {_REMEDY}") from error


def load_weights(network: nn.Module, data: bytes, path: str, remedy: str) -> None:
    """Load weights into a network, which is then ready to predict.

    Raises:
        InputError: the weights do not fit the network, or some are NaN or Inf.
    """
    try:
        weights = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{path} is not a safetensors file ({error}); {remedy}") from error
    wanted = network.state_dict()
    shapes = [{(name, value.shape) for name, value in state.items()} for state in (wanted, weights)]
    wrong = sorted({name for name, _ in shapes[0] ^ shapes[1]})
    if wrong:
        raise InputError(
            f"{path}: {len(wrong)} weights do not fit the network of its settings, first {wrong[0]}; {remedy}"
        )
    if not all(bool(torch.isfinite(v.float()).all()) for v in weights.values()):
        raise InputError(f"{path}: NaN or Inf among the weights; {remedy}")
    network.load_state_dict({k: v.to(wanted[k].dtype) for k, v in weights.items()})
    network.eval().requires_grad_(False)
