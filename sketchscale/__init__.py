"""From a few strokes on a huge microscope image to every object outlined, measured, classified and counted.

The names below are the public API; they load when first used, so `import sketchscale` costs nothing.

    open(address)             a lazy view of an image or of its labels (xarray over dask)
    segment(image, ...)       labels of an array in memory, or of an image in storage (written into it)
    measure, evaluate         figures of the objects of arrays in memory, or of an image in storage
    convert, train, classify, count, report, run
                              the other use cases of the command line, as functions
    Sketch, Model             an image's annotation, to make, save and open; a trained network with its configuration
    SketchscaleError          the base of every error raised on purpose

Options are keyword arguments, as in segment(image, min_size=20); their classes are in `sketchscale.options`.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Model": "sketchscale.networks.checkpoint:Model",
    "Sketch": "sketchscale.api.sketches:Sketch",
    "SketchscaleError": "sketchscale.errors:SketchscaleError",
    "classify": "sketchscale.api.classes:classify",
    "convert": "sketchscale.api.stores:convert",
    "count": "sketchscale.workflow.measure.count:count",
    "evaluate": "sketchscale.api.objects:evaluate",
    "measure": "sketchscale.api.objects:measure",
    "open": "sketchscale.workflow.segment.arrays:open_view",
    "report": "sketchscale.api.stores:report",
    "run": "sketchscale.api.studies:run",
    "segment": "sketchscale.api.labels:segment",
    "train": "sketchscale.api.labels:train",
}
"""Public name to its module and attribute."""

__all__ = ["Model", "Sketch", "SketchscaleError", "classify", "convert", "count", "evaluate"]
__all__ += ["measure", "open", "report", "run", "segment", "train"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'sketchscale' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
