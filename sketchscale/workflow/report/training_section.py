"""What a report shows of the training of its model: the curve, and what was drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sketchscale.errors import MissingDataError
from sketchscale.reports.html import TrainingLog
from sketchscale.reports.strokes import StrokeRow

__all__ = ["training_log"]


def training_log(used: Mapping[str, Any], model: str | None) -> TrainingLog | None:
    """Of the model that was named, else of the one that made the labels, where a folder of its name is here.

    Args:
        used: what `segment` wrote of its model with the labels.
        model: folder of the model that was named.

    Raises:
        MissingDataError: the model that was named has no provenance.
    """
    path = Path(model or str(used.get("name", ""))) / "provenance.json"
    if not path.is_file():
        if model is None:
            return None
        raise MissingDataError(f"{path} does not exist; expected: a model trained here; to fix: drop --model")
    provenance = json.loads(path.read_text("utf-8"))
    if model is None and not _is_same(path.with_name("config.json"), used):
        return None
    return _log_of(provenance)


def _is_same(config: Path, used: Mapping[str, Any]) -> bool:
    """Whether the model at a place is still the one that was used."""
    return config.is_file() and json.loads(config.read_text("utf-8")).get("sha256") == used.get("sha256")


def _log_of(provenance: Mapping[str, Any]) -> TrainingLog | None:
    curve = provenance.get("curve", {})
    if not curve.get("loss"):
        return None
    names = {"steps": "steps", "seconds": "time, s", "ended_by": "ended by"}
    return TrainingLog(
        loss=tuple((step, loss) for step, loss in curve["loss"]),
        validation=tuple((step, -score) for step, score in curve.get("score", ())),
        facts={name: str(provenance[key]) for key, name in names.items() if key in provenance},
        strokes=tuple(_strokes(n, one) for n, one in enumerate(provenance.get("annotated", ()), start=1)),
    )


def _strokes(position: int, summary: Mapping[str, Any]) -> StrokeRow:
    return StrokeRow(
        image=summary.get("image") or f"image {position}",
        objects=int(summary["objects"]),
        pixels={name: int(n) for name, n in summary["pixels"].items()},
        size=math.prod(summary["shape"]),
    )
