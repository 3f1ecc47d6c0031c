"""The training section of a report: the curve of the model, and what was drawn."""

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
    """Return the log of the given model, else of the one that made the labels, where its folder is here.

    Args:
        used: what `segment` stored about its model with the labels.
        model: folder of a model.

    Raises:
        MissingDataError: the given model has no provenance.
    """
    path = Path(model or str(used.get("name", ""))) / "provenance.json"
    if not path.is_file():
        if model is None:
            return None
        raise MissingDataError(f"{path} does not exist; expected: a model trained here; to fix: drop --model")
    provenance = json.loads(path.read_text("utf-8"))
    config = path.with_name("config.json")
    if model is None and not (
        config.is_file() and json.loads(config.read_text("utf-8")).get("sha256") == used.get("sha256")
    ):
        return None  # the folder holds another model by now
    curve = provenance.get("curve", {})
    if not curve.get("loss"):
        return None
    names = {"steps": "steps", "seconds": "time, s", "ended_by": "ended by"}
    return TrainingLog(
        loss=tuple((step, loss) for step, loss in curve["loss"]),
        validation=tuple((step, -score) for step, score in curve.get("score", ())),
        facts={name: str(provenance[key]) for key, name in names.items() if key in provenance},
        strokes=tuple(
            StrokeRow(
                image=summary.get("image") or f"image {position}",
                objects=int(summary["objects"]),
                pixels={name: int(n) for name, n in summary["pixels"].items()},
                size=math.prod(summary["shape"]),
            )
            for position, summary in enumerate(provenance.get("annotated", ()), start=1)
        ),
    )
