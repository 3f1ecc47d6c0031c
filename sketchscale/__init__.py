"""From a few strokes on a huge microscope image to every object outlined, measured, classified and counted.

The names below are all there is to use; they load when first used, so `import sketchscale` costs nothing.

    open(address)             a lazy view of an image or of its labels (xarray over dask)
    segment(image, ...)       labels of an array in memory, or of an image in storage (written beside it)
    convert, train, measure, classify, count, evaluate, report, run
                              the use cases of the command line, as functions
    Sketch, Model             an image's annotation; a trained network with its configuration
    SketchscaleError          the base of every error raised on purpose
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Model": "sketchscale.networks.checkpoint:Model",
    "Sketch": "sketchscale.annotations.sketch:Sketch",
    "SketchscaleError": "sketchscale.errors:SketchscaleError",
    "classify": "sketchscale.workflow.classify:apply_classes",
    "convert": "sketchscale.workflow.convert:convert_images",
    "count": "sketchscale.workflow.count:count",
    "evaluate": "sketchscale.workflow.evaluate:evaluate",
    "measure": "sketchscale.workflow.measure:measure",
    "open": "sketchscale.workflow.arrays:open_view",
    "report": "sketchscale.workflow.report:write_report",
    "run": "sketchscale.workflow.study:run_study",
    "segment": "sketchscale.workflow.arrays:segment_anything",
    "train": "sketchscale.workflow.train:train",
}
"""Public name to where it lives."""

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
