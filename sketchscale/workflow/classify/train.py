"""Train a classifier on annotated objects of one or several images, and report how good it is.

    marks ──▶ objects of each image ──▶ patches and rows ──▶ classifier folder
                                                              ├── weights, configuration, provenance
                                                              ├── confusion.svg   predicted classes of held-out objects
                                                              └── summary.txt     the same in words

Each image is scaled by its own percentiles, so that a brighter plate is not another class. Some objects are held out
for the score and then used for training, too: the score is that of a classifier trained on the others.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow

from sketchscale import __version__
from sketchscale.config import ClassifyOptions, Execution
from sketchscale.errors import InputError
from sketchscale.intensity import channel_ranges
from sketchscale.io.ome_zarr.table import read_batches, require_table
from sketchscale.io.runs.ledger import StoreLedger
from sketchscale.io.stores.blobs import put_blob
from sketchscale.io.stores.output_files import require_local
from sketchscale.objects.annotation.examples import assign_marks, class_colors, read_marks, resolve_marks
from sketchscale.objects.annotation.mark_files import check_colors
from sketchscale.objects.classes import check_same_shape
from sketchscale.objects.classifiers import (
    AUGMENTS,
    Classifier,
    NetworkOptions,
    TrainingOptions,
    find_classifier,
    load_classifier,
    save_classifier,
    train_classifier,
)
from sketchscale.objects.classifiers.preparation import PatchOptions
from sketchscale.objects.classifiers.rows import feature_columns, feature_rows
from sketchscale.objects.patches import estimate_side, object_windows, read_patches
from sketchscale.reports.confusion import confusion_svg, confusion_text
from sketchscale.workflow.images import expand
from sketchscale.workflow.measure.measure import LabelSetting, label_setting
from sketchscale.workflow.precision import settle_precision
from sketchscale.workflow.runner import Runner, refuse_existing
from sketchscale.workflow.verbs import verb

__all__ = ["ClassifierResult", "plane_percentiles", "rows_of_labels", "train_classes"]

_LOW, _HIGH = 1.0, 99.8
_UNSCALED = (0.0, 1.0)
_OF_NETWORKS = (
    "side", "depth", "kernel", "width", "steps", "batch", "rate", "weight_decay", "schedule", "augment", "loss",
    "normalize", "context_radius", "mask", "device", "precision",
)  # fmt: skip
"""Options that do not apply to a forest on the table."""
_MOST_PIXELS = 2**20
"""Most pixels of a patch: a batch of eight through sixteen filters is 0.5 GB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierResult:
    """A trained classifier.

    Attributes:
        n: annotated objects. ignored: marks of images that were not asked for.
        held_out: score on objects that a first training did not use, or None.
    """

    folder: str
    kind: str
    classes: tuple[str, ...]
    n: int
    side: int
    ignored: int
    held_out: Mapping[str, Any] | None
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Examples:
    """Annotated objects of one image: their classes by label, and their rows of the table, in the same order."""

    setting: LabelSetting
    classes: Mapping[int, str]
    table: pyarrow.Table
    ranges: tuple[tuple[float, float], ...]


@verb()
def train_classes(
    images: str | Sequence[str],
    labels: str,
    annotations: str,
    out: str,
    options: ClassifyOptions | None = None,
    *,
    overwrite: bool = False,
    execution: Execution | None = None,
    cancel: threading.Event | None = None,
) -> ClassifierResult:
    """Train a classifier on annotated objects.

    Args:
        images: addresses, plates or patterns; where there are several, each mark names its image.
        annotations: CSV, Parquet or GeoJSON; see `objects.annotation.mark_files`.
        out: folder to write.

    Raises:
        InputError: a mark that hits no object, fewer than two classes, images of other channels.
        MissingDataError: labels were not measured.
        OutputExistsError: the folder is there.
    """
    execution, options = execution or Execution(), options or ClassifyOptions()
    require_local(out)
    refuse_existing(out, overwrite=overwrite)
    _refuse_unused(options)
    training = _training_options(options)
    init = load_classifier(options.init) if options.init else None
    addresses = expand([images] if isinstance(images, str) else images)
    marks = read_marks(annotations)
    assigned = assign_marks(marks, addresses)
    used = [address for address in addresses if assigned.of[address]]
    least = 2 if len(used) == 1 else 0
    parts = [_examples(one, labels, assigned.of[one], options, least, execution) for one in used]
    if not parts:
        raise InputError.of(
            found=f"{annotations}: no annotated object of these images",
            expected="objects of at least two classes",
            fix="annotate some, or name the images that were annotated",
        )
    colors = {**class_colors(marks), **check_colors(options.colors)}
    _check_parts(parts, colors)
    classifier = _train(parts, options, training, init, {"colors": colors})
    save_classifier(out, classifier)
    result = _result(out, classifier, sum(len(part.classes) for part in parts), sum(assigned.ignored.values()))
    lines = [result.summary, f"kind: {result.kind}; classifier {classifier.sha256[:12]}"]
    if result.held_out:
        matrix = result.held_out["confusion"]
        put_blob(out, "confusion.svg", confusion_svg(result.classes, matrix).encode())
        lines.append(confusion_text(result.classes, matrix))
    put_blob(out, "summary.txt", ("\n".join(lines) + "\n").encode())
    return result


def _refuse_unused(options: ClassifyOptions) -> None:
    """Refuse options of networks for a classifier without one, rather than ignore them."""
    if find_classifier(options.kind).network is not None:
        return
    default = ClassifyOptions()
    for name in _OF_NETWORKS:
        if getattr(options, name) not in (getattr(default, name), "float32"):  # the precision of forests
            raise InputError.of(
                found=f"{name} {getattr(options, name)} for {options.kind}, which reads the table alone",
                expected="an option of forests",
                fix=f"leave out --{name.replace('_', '-')}, or choose --kind light or ensemble",
            )


def _training_options(options: ClassifyOptions) -> TrainingOptions:
    network = find_classifier(options.kind).network is not None
    given = {"steps": options.steps, "learning_rate": options.rate, "loss": options.loss}
    fit: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return TrainingOptions(
        batch=options.batch,
        weight_decay=options.weight_decay,
        schedule=options.schedule,
        augment=AUGMENTS[options.augment],
        network=NetworkOptions(depth=options.depth, kernel=options.kernel, width=options.width),
        patches=PatchOptions(
            normalization=options.normalize, mask=options.mask, context=options.context_radius, mirror=True
        ),
        class_weights=options.weights,
        held_out=options.hold_out,
        seed=options.seed,
        device=options.device,
        precision=settle_precision(options.precision, options.device, "training") if network else "float32",
        **fit,
    )


def _examples(
    address: str, labels: str, marks: Sequence[Any], options: ClassifyOptions, least: int, execution: Execution
) -> _Examples:
    """Return the annotated objects of one image, with their rows of the table."""
    setting = label_setting(address, labels, execution)
    require_table(setting.image.address, labels)
    source = setting.labels.array(0)
    check_same_shape(source, setting.plane)
    batches = read_batches(setting.image.address, labels, columns=["label"])
    known = np.concatenate([batch.column("label").to_numpy() for batch in batches])
    classes = resolve_marks(
        marks, source, known, spacing=setting.plane.spacing_um, on_conflict=options.on_conflict, least=least
    )
    ranges: tuple[tuple[float, float], ...] = (_UNSCALED,) * len(setting.plane.channels)
    if find_classifier(options.kind).network is not None and options.normalize == "plane":
        with Runner(execution) as runner:
            ranges = plane_percentiles(setting, runner, None)
    rows = rows_of_labels(setting.image.address, labels, np.array(sorted(classes), np.int64))
    return _Examples(setting=setting, classes=classes, table=rows, ranges=ranges)


def rows_of_labels(
    address: str, labels: str, wanted: npt.NDArray[np.int64], columns: list[str] | None = None
) -> pyarrow.Table:
    """Return the rows of some objects, in their order; the table is read in batches."""
    kept = [
        batch.filter(pyarrow.array(np.isin(batch.column("label").to_numpy(), wanted)))
        for batch in read_batches(address, labels, columns=columns)
    ]
    table = pyarrow.Table.from_batches(kept)
    found = table.column("label").to_numpy()
    order = np.argsort(found)
    return table.take(order[np.searchsorted(found[order], wanted)])


def plane_percentiles(
    setting: LabelSetting, runner: Runner, ledger: StoreLedger | None
) -> tuple[tuple[float, float], ...]:
    """Return the percentiles of each channel over the whole image, as in segmentation."""
    return channel_ranges(lambda plan: runner.run(plan, ledger), setting.plane, setting.block, low=_LOW, high=_HIGH)


def _check_parts(parts: Sequence[_Examples], colors: Mapping[str, str]) -> None:
    """Refuse images with other channels than the first one, and a colour for a class without annotation."""
    classes = sorted({name for part in parts for name in part.classes.values()})
    for name in colors:
        if name not in classes:
            raise InputError.of(
                found=f"a color for {name!r}",
                expected=f"one of the classes {', '.join(classes)}",
                fix="correct --color",
            )
    first = parts[0].setting
    for part in parts[1:]:
        if part.setting.plane.channels != first.plane.channels:
            raise InputError.of(
                found=f"{part.setting.image.address} with channels {', '.join(part.setting.plane.channels)}",
                expected=f"those of {first.image.address}: {', '.join(first.plane.channels)}",
                fix="train on images of one kind",
            )


def _train(
    parts: Sequence[_Examples],
    options: ClassifyOptions,
    training: TrainingOptions,
    init: Classifier | None,
    about: Mapping[str, Any],
) -> Classifier:
    """Read patches and rows of all images, and train a classifier on them."""
    first, kind = parts[0], find_classifier(options.kind)

    patches: npt.NDArray[np.float32] | None = None
    rows: npt.NDArray[np.float64] | None = None
    features: tuple[str, ...] = ()
    if kind.network is not None:
        side = _side(parts, options, init)
        patches = np.concatenate(
            [
                read_patches(
                    p.setting.labels.array(0),
                    p.setting.plane,
                    object_windows(p.table, side),
                    p.ranges,
                    mirror=training.patches.mirror,
                )
                for p in parts
            ]
        )
    if kind.forest is not None:
        features = feature_columns(first.table)
        rows = np.concatenate([feature_rows(part.table, features) for part in parts])
    return train_classifier(
        patches,
        rows,
        [part.classes[label] for part in parts for label in part.table.column("label").to_pylist()],
        kind=options.kind,
        channels=first.setting.plane.channels,
        ranges=first.ranges if patches is not None else (),
        features=features,
        options=training,
        init=init,
        provenance={
            "sketchscale": __version__,
            "annotated": {p.setting.labels.identity(): {str(k): name for k, name in p.classes.items()} for p in parts},
            **about,
        },
    )


def _side(parts: Sequence[_Examples], options: ClassifyOptions, init: Classifier | None) -> int:
    """Return the side of the patches: the given one, that of the classifier to start from, or an estimate."""
    if init and options.side not in (None, init.config.side):
        raise InputError.of(
            found=f"--side {options.side} and a start with patches of {init.config.side} px",
            expected="one side",
            fix="leave out --side, or --init",
        )
    side = init.config.side if init else options.side or max(estimate_side(p.table, list(p.classes)) for p in parts)
    dim = len(parts[0].setting.plane.shape)
    if side**dim > _MOST_PIXELS:
        raise InputError.of(
            found=f"patches of {side} px",
            expected=f"at most {int(_MOST_PIXELS ** (1 / dim))} px",
            fix="a smaller --side: an object that is cut is seen, too",
        )
    return side


def _result(out: str, classifier: Classifier, n: int, ignored: int) -> ClassifierResult:
    held_out, config = classifier.provenance.get("held_out"), classifier.config
    score = "too few objects to hold some out"
    if held_out:
        score = f"accuracy {held_out['accuracy']:.3f} on {held_out['n']} held-out objects"
    looks = f", patches of {config.side} px" if classifier.needs_patches else ""
    reads = f", {len(config.features)} features" if classifier.needs_table else ""
    others = f"; {ignored} marks of other images left out" if ignored else ""
    return ClassifierResult(
        folder=out,
        kind=config.kind,
        classes=config.classes,
        n=n,
        side=config.side,
        ignored=ignored,
        held_out=held_out,
        summary=f"{out}: {', '.join(config.classes)} from {n} objects{looks}{reads}; {score}{others}",
    )
