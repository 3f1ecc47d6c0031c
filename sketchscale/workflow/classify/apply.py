"""Classify all measured objects: store class columns, a class image and masks; training is in `classify.train`.

    ranges ─▶ assign ─▶ classify ─▶ collect ─┬─▶ labels/<name>_class     number of the class, in the classes' colours
                                             ├─▶ labels/<name>_<class>   on request: the objects of one class
                                             └─▶ tables/<name>           rows are copied in groups, with class columns

Masks keep the ids of their objects, so they can be measured and counted like any labels; `> 0` makes them binary.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow
import pyarrow.compute

from sketchscale import __version__
from sketchscale.config import Execution
from sketchscale.engine.base import Event
from sketchscale.errors import InputError, MissingDataError, OutputExistsError
from sketchscale.io.ome_zarr.arrays import ArrayRef, open_array
from sketchscale.io.ome_zarr.image import Image
from sketchscale.io.ome_zarr.new_images import commit_labels, create_labels, delete_labels, label_arrays
from sketchscale.io.ome_zarr.table import read_batches, require_table, table_digest, write_table
from sketchscale.io.runs.ledger import StoreLedger, reopen_ledger
from sketchscale.networks.precision import Precision
from sketchscale.objects.class_image import plan_class_image, plan_class_mask, put_class_lookup
from sketchscale.objects.classes import assign_objects, collect_classes, plan_classify, with_classes
from sketchscale.objects.classifiers import Classifier, load_classifier
from sketchscale.objects.classifiers.rows import feature_rows
from sketchscale.objects.patches import object_windows, window_columns
from sketchscale.reports.pictures import color_of
from sketchscale.workflow.classify.train import ClassifierResult, plane_percentiles, train_classes
from sketchscale.workflow.measure.measure import LabelSetting, label_provenance, label_setting
from sketchscale.workflow.precision import kept_by_run, settle_precision
from sketchscale.workflow.runner import Runner, forget_run_if_unfit, open_run, quiet
from sketchscale.workflow.verbs import verb

__all__ = ["ClassifierResult", "ClassifyResult", "apply_classes", "class_colors_of", "train_classes"]

_UNSCALED = (0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyResult:
    """Number of objects of each class.

    Attributes:
        cropped: number of objects larger than the patch of `side` pixels.
        masks: names of the label images of one class each.
    """

    image: str
    labels: str
    counts: dict[str, int]
    cropped: int
    side: int
    masks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """Inputs that the steps of one application share."""

    setting: LabelSetting
    labels: str
    trained: Classifier
    precision: Precision
    runner: Runner
    ledger: StoreLedger

    @property
    def source(self) -> ArrayRef:
        return self.setting.labels.array(0)

    @property
    def about(self) -> dict[str, Any]:
        """Provenance for the table."""
        known = self.trained.provenance
        return {
            "stage": "classify",
            "version": __version__,
            "classifier": self.trained.sha256,
            "precision": self.precision,
            "classes": list(self.trained.config.classes),
            "held_out": known.get("held_out"),
            "labels": self.setting.provenance,
        }


@verb({"crops": 4, "classify": 4, "class-image": 1, "class-mask": 1, "level": 1})
def apply_classes(
    address: str,
    labels: str,
    classifier: str,
    execution: Execution | None = None,
    on_event: Callable[[Event], None] = quiet,
    *,
    masks: bool = False,
    precision: str = "auto",
    cancel: threading.Event | None = None,
) -> ClassifyResult:
    """Give every measured object a class.

    Args:
        masks: also write `labels/<labels>_<class>` for every class, its objects with their ids.
        precision: of the classifier's network: auto, float32 or bfloat16; a resumed run keeps its own.

    Raises:
        InputError: the image's channels are not those of the classifier, or the table lacks columns that it reads; or a
            precision for a classifier without a network.
        MissingDataError: the labels were not measured.
        OutputExistsError: classes are there; overwrite or resume.
    """
    execution = execution or Execution()
    setting = label_setting(address, labels, execution)
    trained = load_classifier(classifier)
    trained.check_channels(setting.plane.channels)
    require_table(setting.image.address, labels)
    _check_columns(setting, labels, trained)
    names = _mask_names(setting.image, labels, trained.config.classes, execution) if masks else {}
    run = f"classify-{labels}"
    settled = _settled(precision, trained, kept_by_run(setting.image.address, run, resume=execution.resume))
    fingerprint = {
        "code": __version__,
        "input": setting.image.identity(),
        "labels": setting.labels.identity(),
        "table": _measured_digest(setting.image, labels),
        "classifier": trained.sha256,
        "colors": json.dumps(class_colors_of(trained.config.classes, trained.provenance)),
        "masks": json.dumps(list(names.values())),
        "recipe": json.dumps({"precision": settled}),
        "block": json.dumps(setting.block),
    }
    outputs = (f"tables/{labels}", f"labels/{labels}_class", *(f"labels/{name}" for name in names.values()))
    with open_run(setting.image, run, fingerprint, execution, outputs=outputs) as ledger:
        committed = ledger.committed("result")
        if committed is None:
            with Runner(execution, on_event) as runner, forget_run_if_unfit(ledger):
                work = _Work(
                    setting=setting, labels=labels, trained=trained, precision=settled, runner=runner, ledger=ledger
                )
                committed = _classify(work, names)
        ledger.clear_scratch()
    return ClassifyResult(
        image=setting.image.address,
        labels=labels,
        counts=committed["counts"],
        cropped=committed["cropped"],
        side=trained.config.side,
        masks=tuple(committed["masks"].values()),
    )


def _settled(wanted: str, trained: Classifier, kept: Callable[[], str | None]) -> Precision:
    """Return the precision of the classifier's network; float32 where it has none."""
    if trained.needs_patches:
        return settle_precision(wanted, "cpu", kept=kept)
    if wanted not in ("auto", "float32"):
        raise InputError.of(
            found=f"precision {wanted} for {trained.config.kind}, which reads the table alone",
            expected="a classifier with a network",
            fix="leave out --precision",
        )
    return "float32"


def _columns(setting: LabelSetting, trained: Classifier) -> list[str]:
    """Return the columns of the stored table that are read: positions, boxes, and the classifier's features."""
    places = window_columns("zyx"[-len(setting.plane.shape) :])
    return [*dict.fromkeys([*places, *trained.config.features])]


def _check_columns(setting: LabelSetting, labels: str, trained: Classifier) -> None:
    """Refuse a table that lacks columns before anything is removed or computed."""
    first = next(read_batches(setting.image.address, labels, columns=_columns(setting, trained)))
    none = pyarrow.Table.from_batches([first.slice(0, 0)])
    object_windows(none, 1)
    feature_rows(none, trained.config.features)


def _mask_names(image: Image, labels: str, classes: Sequence[str], execution: Execution) -> dict[str, str]:
    """Return the name of the label image of each class."""
    names = {known: f"{labels}_{re.sub(r'[^A-Za-z0-9.-]+', '-', known).strip('-.')}" for known in classes}
    taken = [*names.values(), f"{labels}_class", f"{labels}_"]
    for known, name in names.items():
        if taken.count(name) > 1:
            raise InputError.of(
                found=f"class {known!r}, whose mask would be labels/{name}",
                expected="names that differ in letters and digits, other than 'class'",
                fix="train with other class names, or leave out --masks",
            )
        if name in image.labels and not _is_mask(image, name) and not execution.overwrite:
            raise OutputExistsError(
                f"{image.address} has labels {name!r} of another origin; expected: a free name; to fix: --overwrite"
            )
    return names


def _is_mask(image: Image, name: str) -> bool:
    return label_provenance(image.label_image(name)).get("stage") == "class-mask"


def _measured_digest(image: Image, labels: str) -> str:
    """Return the digest of the table as it was measured; "" when another tool wrote it."""
    try:
        found = reopen_ledger(image.address, f"measure-{labels}").committed("result")
    except MissingDataError:
        return ""
    return str((found or {}).get("sha256", ""))


def class_colors_of(classes: Sequence[str], provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return the colour of each class: that of its training, else the PALETTE's at its position, as in reports.

    >>> class_colors_of(["a", "b"], {"colors": {"a": "#ff0000"}})
    {'a': '#ff0000', 'b': '#f59f00'}
    """
    given = provenance.get("colors", {})
    return {name: given.get(name, color_of(i)) for i, name in enumerate(classes)}


def _classify(work: _Work, masks: Mapping[str, str]) -> dict[str, Any]:
    setting, trained, ledger = work.setting, work.trained, work.ledger
    ranges = _ranges(work)
    plan = plan_classify(
        work.source,
        setting.plane,
        trained,
        store=ledger.scratch,
        block=setting.block,
        ranges=ranges,
        precision=work.precision,
    )
    columns = _columns(setting, trained)
    table = pyarrow.Table.from_batches(read_batches(setting.image.address, work.labels, columns=columns))
    assign_objects(plan, table)
    table = table.select(["label"])  # all that is kept in memory while blocks are classified
    work.runner.run(plan, ledger)
    annotated = trained.provenance.get("annotated", {}).get(setting.labels.identity(), {})
    classified = collect_classes(plan, table, {int(label): name for label, name in annotated.items()})
    _paint(work, classified, masks)
    write_table(
        setting.image.address,
        work.labels,
        with_classes(read_batches(setting.image.address, work.labels), classified),
        region=work.labels,
        attributes={"sketchscale": work.about},
    )
    result = {
        "counts": _counts(classified, trained.config.classes),
        "cropped": pyarrow.compute.sum(classified.column("patch_cropped")).as_py() or 0,
        "masks": dict(masks),
        "ranges": [list(one) for one in ranges],
        "sha256": table_digest(setting.image.address, work.labels),
    }
    ledger.commit("result", result)
    return result


def _ranges(work: _Work) -> tuple[tuple[float, float], ...]:
    """Return the percentiles of this image, or those of the training; counts only what is used."""
    if not work.trained.needs_patches:
        return (_UNSCALED,) * len(work.setting.plane.channels)
    if not work.trained.plane_ranges:
        return work.trained.config.ranges
    return plane_percentiles(work.setting, work.runner, work.ledger)


def _counts(classified: pyarrow.Table, classes: Sequence[str]) -> dict[str, int]:
    found = pyarrow.compute.value_counts(classified.column("class")).to_pylist()
    numbers = {entry["values"]: entry["counts"] for entry in found}
    return {name: numbers.get(name, 0) for name in sorted({*classes, *numbers})}


def _paint(work: _Work, classified: pyarrow.Table, masks: Mapping[str, str]) -> None:
    """Write the class image, the masks, and their pyramids."""
    image, name = work.setting.image, f"{work.labels}_class"
    classes = list(_counts(classified, work.trained.config.classes))
    if work.ledger.committed("arrays") is None:
        _make_arrays(work, name, masks)
        work.ledger.commit("arrays", {})
    about = {"version": __version__, "classifier": work.trained.sha256, "classes": classes}
    store = work.ledger.scratch
    key = put_class_lookup(store, "lookup", classified, classes)
    levels = label_arrays(image, name)
    plan = plan_class_image(work.source, levels[0], store=store, key=key, block=work.setting.block)
    _run_levels(work, plan, levels)
    colors = class_colors_of(classes, work.trained.provenance)
    commit_labels(
        image,
        name,
        colors={i + 1: (*bytes.fromhex(colors[known][1:]), 255) for i, known in enumerate(classes)},
        properties=[{"label-value": i + 1, "class": known} for i, known in enumerate(classes)],
        attributes={"sketchscale": {"stage": "classify", **about}},
    )
    for known, mask in masks.items():
        levels, code = label_arrays(image, mask), classes.index(known) + 1
        plan = plan_class_mask(work.source, levels[0], code=code, store=store, key=key, block=work.setting.block)
        _run_levels(work, plan, levels)
        commit_labels(image, mask, attributes={"sketchscale": {"stage": "class-mask", "class": known, **about}})


def _make_arrays(work: _Work, name: str, masks: Mapping[str, str]) -> None:
    """Create empty arrays; delete masks of an earlier run, because their classes may differ."""
    image = work.setting.image
    for old in [n for n in image.labels if n.startswith(f"{work.labels}_") and n != name and _is_mask(image, n)]:
        delete_labels(image, old)
    source = open_array(work.source)
    for new, dtype in {name: "uint8", **dict.fromkeys(masks.values(), str(source.dtype))}.items():
        delete_labels(image, new)
        create_labels(image, new, dtype=dtype, chunks=source.chunks)


def _run_levels(work: _Work, plan: Any, levels: Sequence[ArrayRef]) -> None:
    work.runner.run(plan, work.ledger)
    work.runner.run_pyramid(levels, work.ledger)
