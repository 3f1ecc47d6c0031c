"""Options of work on objects: measure, classify, propose, count, report."""

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
    """Features to measure of each object."""

    features: tuple[str, ...] | None = option(
        None, "Feature or group: geometry, intensity, texture, neighbours, ring; repeat it, or use commas.", commas=True
    )
    without: tuple[str, ...] = option((), "Feature or group to leave out; repeat it, or use commas.", commas=True)
    profile: str | None = option(None, "pycytominer: also write a table NAME_pycytominer with its column names.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyOptions(NetworkPrecision):
    """Annotated objects to a class for every object; see objects.classifiers. None means the default of the kind."""

    annotations: str | None = option(None, "CSV, Parquet or GeoJSON: label or y,x; class; image if several.")
    classifier: str | None = option(
        None, "Folder of a classifier to apply; in a study with annotations, where to save it."
    )
    kind: str = option("light", "light, resnet18, random-forest, gradient-boosting or ensemble (light + forest).")
    side: int | None = option(
        None, "Side of a patch; by default estimated from the annotated objects.", unit="px", at_least=4
    )
    depth: int = option(2, "Number of convolutions of a light network.", at_least=2, at_most=4)
    kernel: int = option(3, "Side of its convolutions: 3 or 5.")
    width: int | None = option(None, "Number of filters of its first convolution.", at_least=1)
    steps: int | None = option(None, "Number of optimiser steps.", at_least=1)
    batch: int = option(32, "Patches per step; fewer if patches are larger than 64 px.", at_least=2)
    rate: float | None = option(None, "Learning rate at the start.", above=0)
    weight_decay: float = option(0.0, "Weight decay of the optimiser: more keeps weights small.", at_least=0)
    schedule: Literal["cosine", "step", "constant"] = option(
        "cosine", "The learning rate: falls to 0 as a cosine, to a tenth after each third of the steps, or stays."
    )
    augment: Literal["none", "flips", "rotations", "turns", "all"] = option(
        "turns",
        "How patches vary: flips along both axes, rotations by quarter turns, turns are both, all changes intensities "
        "too.",
    )
    loss: str | None = option(None, "Name of a loss, such as cross-entropy.")
    weights: Literal["balanced", "none"] = option("balanced", "balanced: every class has the same weight; or none.")
    normalize: str = option(
        "plane", "Scaling of intensities: plane (percentiles of the image), min-max or max (of each patch), or none."
    )
    context_radius: float | None = option(None, "Hide pixels that are farther from the object.", unit="px", at_least=0)
    mask: bool = option(True, "Give the network the mask of the object.", flag="--mask/--no-mask")
    hold_out: float = option(0.2, "Share of the annotated objects of each class that is held out for the score.")
    init: str | None = option(None, "Classifier folder with the weights to start from.")
    colors: dict[str, str] = option(
        factory=dict, help="Colour of a class in images and gallery, NAME=#RRGGBB; repeat it.", flag="--color"
    )
    on_conflict: Literal["refuse", "last"] = option("refuse", "If an object has two classes: refuse, or use the last.")
    masks: bool = option(False, "Also write labels/NAME_CLASS with the objects of each class.")
    seed: int = option(0, "Seed of weights and patches.", at_least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposeOptions(Options):
    """Which objects to propose."""

    n: int = option(50, "Objects to propose.", at_least=1)
    by: Literal["random", "uncertainty", "diversity", "both"] = option(
        "random", "How objects are chosen; only random ones give corrected counts."
    )
    seed: int = option(0, "Seed of the choice.")


@dataclass(frozen=True, slots=True, kw_only=True)
class CountOptions(Labels):
    """What is counted, and how counts are split."""

    by: tuple[str, ...] = option(
        (), "class, well, image or none; repeat it, or use commas; by default image and class.", commas=True
    )
    review: str | None = option(None, "File of reviewed random objects; gives corrected counts.")
    on_conflict: Literal["refuse", "last"] = option(
        "refuse", "If an object in --review has two classes: refuse, or use the last."
    )
    csv: str | None = option(None, "Also write the rows to this file.")


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeOptions(Options):
    """The page on which a person reviews proposed objects."""

    page: str | None = option(None, "HTML page to write, for reviewing the objects by keyboard.")
    classifier: str | None = option(None, "Classifier whose classes and colours --page offers.")
    classes: tuple[str, ...] = option((), "A class to choose from; repeat it.", flag="--class")
    colors: dict[str, str] = option(factory=dict, help="Colour of a class, NAME=#RRGGBB; repeat it.", flag="--color")
    show_class: bool = option(False, "Show the classifier's class on the page.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOptions(Labels, Components):
    """How to import label images of other programs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions(Labels):
    """Tables for other tools."""

    format: str = option("csv", "csv, parquet, pycytominer or anndata.")
    compartment: str | None = option(None, "Cells, Nuclei or Cytoplasm; by default from the labels' name.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOptions(Options):
    """The page of a study."""

    out: str = option("report.html", "The HTML file to write.")
    title: str = option("", "Title of the page.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions(PageOptions, Labels):
    """The page of any images."""

    model: str | None = option(None, "Model folder, for its training curve.")
    truth: tuple[str, ...] = option((), "True labels of each image, in order.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions(NetworkPrecision):
    """Everything on shipped images."""

    out: str = option("sketchscale-demo", "Folder for everything the demo makes.")
    minutes: float = option(1.25, "Training time.", above=0)
    seed: int = option(0, "Seed of the model and of the classifier.", at_least=0)
