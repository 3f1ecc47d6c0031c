"""Classes: train on annotated objects, apply to all, store class columns and a class image.

The class image `labels/<name>_class` carries one colour per class, so that every viewer of OME-Zarr shows classes.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow

from sketchscale import __version__
from sketchscale.config import Execution
from sketchscale.engine.base import Event
from sketchscale.errors import MissingDataError, OutputExistsError
from sketchscale.intensity import channel_ranges
from sketchscale.io.arrays import ArrayRef
from sketchscale.io.image import commit_labels, create_labels, delete_labels, label_arrays
from sketchscale.io.ledger import StoreLedger
from sketchscale.io.pyramid import plan_level
from sketchscale.io.table import list_tables, read_table, table_digest, write_table
from sketchscale.objects.class_image import plan_class_image, put_class_lookup
from sketchscale.objects.classes import (
    collect_classes,
    deal_objects,
    plan_classify,
)
from sketchscale.objects.classifiers import (
    Classifier,
    TrainingOptions,
    load_classifier,
    save_classifier,
    train_classifier,
)
from sketchscale.objects.examples import read_marks, resolve_marks
from sketchscale.objects.patches import estimate_side, object_windows, read_patches
from sketchscale.workflow.measure import LabelSetting, label_setting
from sketchscale.workflow.runner import Runner, forgotten_if_unfit, open_run, quiet

__all__ = ["CLASS_COLORS", "ClassifierResult", "ClassifyResult", "apply_classes", "train_classes"]

CLASS_COLORS = (
    (230, 120, 40, 255),
    (66, 106, 214, 255),
    (40, 170, 90, 255),
    (200, 60, 120, 255),
    (150, 90, 200, 255),
    (120, 120, 40, 255),
    (30, 160, 170, 255),
    (140, 100, 70, 255),
    (110, 110, 110, 255),
)
"""RGBA of classes in the order of their names; used again from the start after nine."""

_LOW, _HIGH = 1.0, 99.8


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierResult:
    """A trained classifier: `held_out` is its score on objects that a first training did not see, or None."""

    folder: str
    classes: tuple[str, ...]
    n: int
    side: int
    held_out: Mapping[str, Any] | None
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyResult:
    """Objects of each class."""

    image: str
    labels: str
    counts: dict[str, int]


def train_classes(
    address: str,
    labels: str,
    annotations: str,
    out: str,
    *,
    seed: int = 0,
    overwrite: bool = False,
    execution: Execution | None = None,
) -> ClassifierResult:
    """Train the SVETLANA network on annotated objects of one image.

    Args:
        annotations: CSV with label,class or y,x,class.
        out: folder to write.

    Raises:
        InputError: a mark that hits no object, or fewer than two classes.
        MissingDataError: the labels were not measured.
        OutputExistsError: the folder is there.
    """
    execution = execution or Execution()
    if Path(out).exists() and not overwrite:
        raise OutputExistsError(
            f"{out} is there already; expected: a new folder; to fix: another --out, or --overwrite"
        )
    setting = label_setting(address, labels, execution)
    table = _table(setting, labels)
    source = setting.labels.array(0)
    examples = resolve_marks(read_marks(annotations), source, table.column("label").to_numpy())
    with Runner(execution) as runner:
        ranges = _ranges(setting, runner, None)
    side = estimate_side(table, list(examples))
    chosen = table.filter(pyarrow.array(np.isin(table.column("label").to_numpy(), list(examples))))
    windows = object_windows(chosen, side)
    patches = read_patches(source, setting.plane, windows, ranges)
    classifier = train_classifier(
        patches,
        None,
        [examples[int(label)] for label in windows.label],
        channels=setting.plane.channels,
        ranges=ranges,
        options=TrainingOptions(seed=seed),
        provenance={
            "sketchscale": __version__,
            "annotated": {setting.labels.identity(): {str(label): name for label, name in examples.items()}},
        },
    )
    save_classifier(out, classifier)
    return _classifier_result(out, classifier, len(examples))


def _classifier_result(out: str, classifier: Classifier, n: int) -> ClassifierResult:
    held_out = classifier.provenance.get("held_out")
    classes = classifier.config.classes
    score = "too few objects to hold some out"
    if held_out:
        score = f"accuracy {held_out['accuracy']:.3f} on {held_out['n']} held-out objects"
    return ClassifierResult(
        folder=out,
        classes=classes,
        n=n,
        side=classifier.config.side,
        held_out=held_out,
        summary=f"{out}: {', '.join(classes)} from {n} objects, patches of {classifier.config.side} px; {score}",
    )


def _table(setting: LabelSetting, labels: str) -> pyarrow.Table:
    if labels not in list_tables(setting.image.address):
        raise MissingDataError(
            f"{setting.image.address} has no table {labels!r}; expected: measured objects; "
            f"to fix: sketchscale measure {setting.image.address} --labels {labels}"
        )
    return read_table(setting.image.address, labels)


def _ranges(setting: LabelSetting, runner: Runner, ledger: StoreLedger | None) -> tuple[tuple[float, float], ...]:
    """Percentiles of each channel over the whole plane, as in segmentation."""
    return channel_ranges(lambda plan: runner.run(plan, ledger), setting.plane, setting.block, low=_LOW, high=_HIGH)


def apply_classes(
    address: str,
    labels: str,
    classifier: str,
    execution: Execution | None = None,
    on_event: Callable[[Event], None] = quiet,
) -> ClassifyResult:
    """Give every measured object a class.

    Raises:
        InputError: the image's channels are not those of the classifier.
        MissingDataError: the labels were not measured.
        OutputExistsError: classes are there; overwrite or resume.
    """
    execution = execution or Execution()
    setting = label_setting(address, labels, execution)
    trained = load_classifier(classifier)
    trained.check_channels(setting.plane.channels)
    table = _table(setting, labels)
    fingerprint = {
        "code": __version__,
        "input": setting.image.identity(),
        "labels": setting.labels.identity(),
        "classifier": trained.sha256,
        "block": json.dumps(setting.block),
    }
    outputs = (f"tables/{labels}", f"labels/{labels}_class")
    ledger = open_run(setting.image, f"classify-{labels}", fingerprint, execution, outputs=outputs)
    committed = ledger.committed("result")
    if committed is None:
        with Runner(execution, on_event) as runner, forgotten_if_unfit(ledger):
            committed = _classify(setting, labels, table, trained, runner, ledger)
    ledger.clear_scratch()
    return ClassifyResult(image=setting.image.address, labels=labels, counts=committed["counts"])


def _classify(
    setting: LabelSetting, labels: str, table: pyarrow.Table, trained: Classifier, runner: Runner, ledger: StoreLedger
) -> dict[str, Any]:
    source = setting.labels.array(0)
    ranges = _ranges(setting, runner, ledger)
    plan = plan_classify(source, setting.plane, trained, store=ledger.scratch, block=setting.block, ranges=ranges)
    deal_objects(plan, table)
    runner.run(plan, ledger)
    said = trained.provenance.get("annotated", {}).get(setting.labels.identity(), {})
    classified = collect_classes(plan, table, {int(label): name for label, name in said.items()})
    _paint(setting, labels, classified, trained, runner, ledger)
    about = {"stage": "classify", "version": __version__, "classifier": trained.sha256, "labels": setting.provenance}
    write_table(setting.image.address, labels, classified, region=labels, attributes={"sketchscale": about})
    numbers = Counter(classified.column("class").to_pylist())
    counts = {name: numbers[name] for name in sorted({*trained.config.classes, *numbers})}
    result = {"counts": counts, "sha256": table_digest(setting.image.address, labels)}
    ledger.commit("result", result)
    return result


def _paint(
    setting: LabelSetting, labels: str, table: pyarrow.Table, trained: Classifier, runner: Runner, ledger: StoreLedger
) -> None:
    """The class image and its pyramid."""
    name, image = f"{labels}_class", setting.image
    if ledger.committed("arrays") is None:
        delete_labels(image, name)
        create_labels(image, name, dtype="uint8", chunks=_chunks(setting))
        ledger.commit("arrays", {})
    levels = label_arrays(image, name)
    classes = sorted({*trained.config.classes, *table.column("class").to_pylist()})
    key = put_class_lookup(ledger.scratch, "lookup", table, classes)
    source: ArrayRef = setting.labels.array(0)
    runner.run(plan_class_image(source, levels[0], store=ledger.scratch, key=key, block=setting.block), ledger)
    for finer, coarser in itertools.pairwise(levels):
        runner.run(plan_level(finer, coarser, "nearest"), ledger)
    commit_labels(
        image,
        name,
        colors={i + 1: CLASS_COLORS[i % len(CLASS_COLORS)] for i in range(len(classes))},
        properties=[{"label-value": i + 1, "class": known} for i, known in enumerate(classes)],
        attributes={"sketchscale": {"stage": "classify", "classifier": trained.sha256, "classes": classes}},
    )


def _chunks(setting: LabelSetting) -> tuple[int, int]:
    y, x = setting.labels.plane().chunks
    return y, x
