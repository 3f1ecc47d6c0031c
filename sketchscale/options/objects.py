"""Options of what is done with objects: measure, classify, propose, count, report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sketchscale.options.groups import Components, Labels, NetworkPrecision
from sketchscale.settings import Options, option

__all__ = [
    "ClassifyOptions",
    "CountOptions",
    "DemoOptions",
    "JudgeOptions",
    "LabelOptions",
    "MeasureOptions",
    "PageOptions",
    "ProposeOptions",
    "ReportOptions",
    "TableOptions",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureOptions(Labels):
    """What is measured of each object."""

    features: tuple[str, ...] | None = option(
        None, "Feature or group: geometry, intensity, texture, neighbours, ring; repeat it, or use commas.", commas=True
    )
    without: tuple[str, ...] = option((), "Feature or group to leave out; repeat it, or use commas.", commas=True)
    profile: str | None = option(None, "pycytominer: also a table NAME_pycytominer with its column names.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyOptions(NetworkPrecision):
    """Annotated objects to a class for every object; see objects.classifiers. None means what the kind says."""

    annotations: str | None = option(None, "CSV, Parquet or GeoJSON: label or y,x; class; image if several.")
    classifier: str | None = option(None, "Folder of a classifier, to apply; with annotations, to train into.")
    kind: str = option("light", "light, resnet18, random-forest, gradient-boosting or ensemble (light + forest).")
    side: int | None = option(None, "Of a patch; estimated from the annotated objects.", unit="px", at_least=4)
    depth: int = option(2, "Convolutions of a light network.", at_least=2, at_most=4)
    kernel: int = option(3, "Side of its convolutions: 3 or 5.")
    width: int | None = option(None, "Filters of its first convolution.", at_least=1)
    steps: int | None = option(None, "Optimiser steps.", at_least=1)
    rate: float | None = option(None, "Learning rate at the start.", above=0)
    loss: str | None = option(None, "Name of a loss, such as cross-entropy.")
    weights: Literal["balanced", "none"] = option("balanced", "balanced: every class weighs the same; or none.")
    normalize: str = option("plane", "plane: percentiles of the image; min-max or max: of each patch; or none.")
    context_radius: float | None = option(None, "Hide what is farther from the object.", unit="px", at_least=0)
    mask: bool = option(True, "Show the network which pixels are the object's.", flag="--mask/--no-mask")
    hold_out: float = option(0.2, "Share of the annotated objects of each class that is scored first.")
    init: str | None = option(None, "Classifier folder whose weights are the start.")
    colors: dict[str, str] = option(
        factory=dict, help="NAME=#RRGGBB of a class, in images and gallery; repeat it.", flag="--color"
    )
    on_conflict: Literal["refuse", "last"] = option("refuse", "Two classes for one object: refuse, or last.")
    masks: bool = option(False, "Also labels/NAME_CLASS: the objects of each class alone.")
    seed: int = option(0, "Of weights and patches.", at_least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposeOptions(Options):
    """Objects to look at."""

    n: int = option(50, "Objects to propose.", at_least=1)
    by: Literal["random", "uncertainty", "diversity", "both"] = option(
        "random", "How they are chosen; corrected counts may be made from random ones only."
    )
    seed: int = option(0, "Another one draws other objects.")


@dataclass(frozen=True, slots=True, kw_only=True)
class CountOptions(Labels):
    """What is counted, and by what."""

    by: tuple[str, ...] = option(
        (), "class, well, image or none; repeated or with commas; image and class if not given.", commas=True
    )
    review: str | None = option(None, "Judged random objects: corrected counts.")
    on_conflict: Literal["refuse", "last"] = option("refuse", "In --review, two judgements of one object.")
    csv: str | None = option(None, "Write the rows to this file, too.")


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeOptions(Options):
    """The page on which a person judges proposed objects."""

    page: str | None = option(None, "HTML file on which to judge them, with the keys.")
    classifier: str | None = option(None, "Its classes and colours, for --page.")
    classes: tuple[str, ...] = option((), "A class to choose from; repeated.", flag="--class")
    colors: dict[str, str] = option(factory=dict, help="NAME=#RRGGBB of a class; repeated.", flag="--color")
    show_class: bool = option(False, "Tell what the classifier said on the page.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOptions(Labels, Components):
    """Label images of other programs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions(Labels):
    """Tables for other tools."""

    format: str = option("csv", "csv, parquet, pycytominer or anndata.")
    compartment: str | None = option(None, "Cells, Nuclei or Cytoplasm; from the labels' name if not given.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOptions(Options):
    """The page of a study."""

    out: str = option("report.html", "The HTML file to write.")
    title: str = option("", "Of the page.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions(PageOptions, Labels):
    """The page of any images."""

    model: str | None = option(None, "Model folder, for its training curve.")
    truth: tuple[str, ...] = option((), "True labels, one per image.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions(NetworkPrecision):
    """The whole main job on shipped images."""

    out: str = option("sketchscale-demo", "Folder for everything the demo makes.")
    minutes: float = option(1.25, "Training time.", above=0)
    seed: int = option(0, "Of the model and of the classifier.", at_least=0)
