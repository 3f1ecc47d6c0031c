"""The option classes of the public functions, for callers who keep options in records instead of keyword arguments.

Each option is declared once, as a field of its class. The declaration gives the flag of the command line with its help,
the key of a study file with its description, and the check of its value (see `settings`). Importing this loads nothing
heavy, so that `--help` is fast.
"""

from __future__ import annotations

from sketchscale.io.files.convert_options import ConvertConfig
from sketchscale.options.execution import Execution
from sketchscale.options.objects import (
    ClassifyOptions,
    CountOptions,
    DemoOptions,
    JudgeOptions,
    LabelOptions,
    MeasureOptions,
    PageOptions,
    ProposeOptions,
    ReportOptions,
    TableOptions,
)
from sketchscale.options.segment import EvaluateOptions, NextOptions, SegmentOptions
from sketchscale.options.sketch import SimulateOptions, SketchOptions
from sketchscale.options.synthesis import GenerateOptions, OutlineOptions, ScoreOptions, SynthesisOptions
from sketchscale.options.train import TrainOptions

__all__ = [
    "ClassifyOptions",
    "ConvertConfig",
    "CountOptions",
    "DemoOptions",
    "EvaluateOptions",
    "Execution",
    "GenerateOptions",
    "JudgeOptions",
    "LabelOptions",
    "MeasureOptions",
    "NextOptions",
    "OutlineOptions",
    "PageOptions",
    "ProposeOptions",
    "ReportOptions",
    "ScoreOptions",
    "SegmentOptions",
    "SimulateOptions",
    "SketchOptions",
    "SynthesisOptions",
    "TableOptions",
    "TrainOptions",
]

_GONE = {"VolumeOptions": "SegmentOptions(volume=True)"}
"""Removed names, and what replaces them."""


def __getattr__(name: str) -> object:
    if name in _GONE:
        raise AttributeError(f"sketchscale.options.{name} is gone; to fix: {_GONE[name]}")
    raise AttributeError(f"module 'sketchscale.options' has no attribute {name!r}")
