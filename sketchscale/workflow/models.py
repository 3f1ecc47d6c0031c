"""Models for users: list and show them, and import and export files of Cellpose and Omnipose."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sketchscale import __version__
from sketchscale.errors import OutputExistsError
from sketchscale.io.stores.blobs import get_blob
from sketchscale.io.stores.output_files import require_local
from sketchscale.networks.checkpoint import (
    SHIPPED,
    is_shipped,
    load_model,
    model_folder,
    own_models,
    save_model,
    shipped_models,
)
from sketchscale.networks.export import save_peer
from sketchscale.networks.model import Model
from sketchscale.networks.peers import load_peer

__all__ = ["export_model", "import_model", "list_models", "read_card", "show_model"]

UNKNOWN_LICENCE = "unknown: ask who made it before you share it or what it makes"


def list_models() -> list[dict[str, Any]]:
    """Return the shipped models, then the user's own.

    Of each: name, what it is for, licence, scores, digest of the weights, channels, parameters, size in bytes and
    diameter in px. What a model is for, its licence and scores are in its `card.json`; a licence that is not there is
    unknown.
    """
    folders = {**own_models(), **{name: str(SHIPPED / name) for name in shipped_models()}}
    names = [*shipped_models(), *(name for name in own_models() if not is_shipped(name))]
    return [_listed(name, folders[name]) for name in names]


def _listed(name: str, folder: str) -> dict[str, Any]:
    model, card = load_model(folder), read_card(folder)
    least = model.config.network.channels - model.config.absent_channels
    return {
        "name": name,
        "for": card.get("for", ""),
        "licence": card.get("licence", UNKNOWN_LICENCE),
        "scores": card.get("scores", {}),
        "shipped": is_shipped(name),
        "sha256": model.sha256,
        "channels": [least, model.config.network.channels],
        "parameters": _parameters(model),
        "bytes": (Path(folder) / "model.safetensors").stat().st_size,
        "diameter": model.config.diameter,
    }


def read_card(folder: str) -> dict[str, Any]:
    """Return what a model's `card.json` says of it; {} where it has none."""
    data = get_blob(folder, "card.json")
    found: dict[str, Any] = json.loads(data) if data else {}
    return found


def show_model(address: str) -> dict[str, Any]:
    """Return everything that is known of a model.

    Args:
        address: folder, name of a shipped model, or a file of Cellpose or Omnipose.

    Raises:
        InputError: it is none of these; see `load_model`.
    """
    model = load_model(address)
    folder = model_folder(address)
    card = read_card(folder) if folder else {}
    picture = Path(folder or "") / "picture.png"
    return {
        "model": address,
        "licence": UNKNOWN_LICENCE,
        **card,
        **({"picture": str(picture)} if folder and picture.is_file() else {}),
        "sha256": model.sha256,
        "parameters": _parameters(model),
        **asdict(model.config),
        "provenance": dict(model.provenance),
    }


def import_model(
    file: str, out: str, *, padding: str | None = None, kind: str | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """Write a file of Cellpose or Omnipose as a model folder, with what was inferred or given; return `show_model`.

    Args:
        out: the folder to write.
        padding, kind: see `load_peer`; None infers them from the file.

    Raises:
        InputError: the file is refused; see `load_peer`.
        OutputExistsError: the folder is there and not empty.
        OutputError: it cannot be written.
    """
    _refuse_existing(require_local(out), overwrite)
    model = load_peer(file, padding=padding, kind=kind)
    save_model(out, model.network, model.config, {**model.provenance, "version": __version__})
    return show_model(out)


def export_model(address: str, out: str, *, to: str, overwrite: bool = False) -> dict[str, Any]:
    """Write a model as a file that Cellpose 3 or Omnipose load.

    Args:
        to: "cellpose" or "omnipose".

    Returns:
        `out`, and `set`: what to set in that program, a line each.

    Raises:
        InputError: the model has no counterpart there; see `save_peer`.
        OutputExistsError: the file is there.
        OutputError: it cannot be written.
    """
    _refuse_existing(require_local(out), overwrite)
    lines = save_peer(load_model(address), out, kind=to)
    return {"out": out, "set": list(lines)}


def _parameters(model: Model) -> int:
    return sum(p.numel() for p in model.network.parameters())


def _refuse_existing(out: Path, overwrite: bool) -> None:
    if overwrite or not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    raise OutputExistsError(f"{out} is there already; expected: a new path; to fix: --overwrite, or another --out")
