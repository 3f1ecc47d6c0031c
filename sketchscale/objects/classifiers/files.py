"""A classifier as a folder: weights in safetensors, configuration with SHA-256, provenance. Loading runs no code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy.typing as npt
import safetensors
import safetensors.numpy

from sketchscale.errors import InputError, MissingDataError
from sketchscale.io.stores.blobs import put_blob
from sketchscale.networks.checkpoint import settings_bytes
from sketchscale.objects.classifiers.base import (
    Classifier,
    ClassifierConfig,
    NetworkOptions,
    create_network,
    find_classifier,
)
from sketchscale.objects.classifiers.forests import check_forest
from sketchscale.objects.classifiers.preparation import PatchOptions

__all__ = ["classifier_digest", "load_classifier", "save_classifier"]


def classifier_digest(config: ClassifierConfig, weights: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return the SHA-256 of weights and configuration, as written to config.json."""
    settings = asdict(config)
    if not config.patches.mirror:
        del settings["patches"]["mirror"]  # classifiers of 0.1 have no such field
    text = json.dumps(settings, sort_keys=True).encode()
    return hashlib.sha256(text + safetensors.numpy.save(dict(sorted(weights.items())))).hexdigest()


_FILES = ("classifier.safetensors", "config.json", "provenance.json")


def save_classifier(folder: str | Path, classifier: Classifier) -> None:
    """Write a classifier folder, replacing an earlier one; raise OutputError if it cannot be written."""
    content = (
        safetensors.numpy.save(dict(sorted(classifier.weights.items()))),
        settings_bytes({**asdict(classifier.config), "sha256": classifier.sha256}),
        settings_bytes(classifier.provenance),
    )
    for name, data in zip(_FILES, content, strict=True):
        put_blob(str(folder), name, data)


_REMEDY = "expected: a folder as `sketchscale classify train` writes it; to fix: copy it again, or train it again"


def load_classifier(folder: str | Path) -> Classifier:
    """Read a classifier folder.

    Raises:
        MissingDataError: the folder or a file is missing.
        InputError: it is not a classifier, or is damaged.
    """
    weights_path, settings_path, provenance_path = (Path(folder) / name for name in _FILES)
    try:
        settings, provenance = (json.loads(p.read_bytes()) for p in (settings_path, provenance_path))
        weights = safetensors.numpy.load(weights_path.read_bytes())
        digest = settings.pop("sha256")
        config = _config(settings)
        kind = find_classifier(config.kind)
        if kind.network is not None:
            create_network(config, weights)
        if kind.forest is not None:
            check_forest(weights, len(config.features), len(config.classes))
    except OSError as error:
        raise MissingDataError(f"{folder} is not a classifier: {error.filename} {error.strerror}; {_REMEDY}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, safetensors.SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{folder} is not a classifier ({type(error).__name__}: {reason}); {_REMEDY}") from error
    if classifier_digest(config, weights) != digest:
        raise InputError(f"{folder}: its SHA-256 is not the one in config.json; {_REMEDY}")
    return Classifier(config=config, weights=weights, provenance=provenance, sha256=digest)


def _config(settings: Mapping[str, Any]) -> ClassifierConfig:
    unknown = set(settings) - {f.name for f in fields(ClassifierConfig)}
    if unknown:
        raise ValueError(f"unknown settings {', '.join(sorted(unknown))}")
    return ClassifierConfig(
        kind=str(settings["kind"]),
        channels=tuple(settings["channels"]),
        classes=tuple(settings["classes"]),
        side=int(settings["side"]),
        ranges=tuple((float(low), float(high)) for low, high in settings["ranges"]),
        dim=settings["dim"],
        features=tuple(settings["features"]),
        network=NetworkOptions(**settings["network"]),
        patches=PatchOptions(**settings["patches"]),
        network_share=float(settings["network_share"]),
    )
