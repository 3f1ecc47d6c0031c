"""The option classes of the public functions, for those who keep options in records instead of keyword arguments."""

from __future__ import annotations

from sketchscale.config import ClassifyOptions, Execution, ReportOptions, SegmentOptions, TrainOptions
from sketchscale.io.convert import ConvertConfig

__all__ = [
    "ClassifyOptions",
    "ConvertConfig",
    "Execution",
    "ReportOptions",
    "SegmentOptions",
    "TrainOptions",
]
