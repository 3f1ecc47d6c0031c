"""The gallery of a classification: choose objects from the tables, cut their windows, write the page.

Tables are read one row group at a time, and only the best candidates of each group of thumbnails are kept, so a study
of millions of objects costs no more memory than one of a thousand. Ties are broken by image and label.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.compute

from sketchscale import __version__
from sketchscale.config import Execution
from sketchscale.errors import InputError
from sketchscale.io.ome_zarr.table import read_batches, require_table
from sketchscale.io.runs.ledger import reopen_ledger
from sketchscale.io.stores.output_files import put_file
from sketchscale.objects.attention import check_attention, grad_cam
from sketchscale.objects.classifiers import Classifier, load_classifier
from sketchscale.objects.patches import estimate_side, object_windows, read_patches, window_columns
from sketchscale.reports.gallery import BINS, GalleryClass, GalleryData, Thumbnail, render_gallery, thumbnail
from sketchscale.workflow.classify.apply import class_colors_of
from sketchscale.workflow.classify.train import plane_percentiles, rows_of_labels
from sketchscale.workflow.images import short_name
from sketchscale.workflow.measure.measure import LabelSetting, label_setting
from sketchscale.workflow.runner import Runner, refuse_existing
from sketchscale.workflow.verbs import verb

__all__ = ["check_gallery", "write_gallery"]

_MOST, _LEAST, _ALL = 24, 4, 600
"""Thumbnails of one group: at most, at least; and about how many in total."""

_PICK = np.dtype([("probability", "f4"), ("image", "i8"), ("label", "i8"), ("choice", "i8")])
Picks = npt.NDArray[Any]


def check_gallery(out: str | None, classifier: str, *, attention: bool, overwrite: bool) -> None:
    """Refuse a gallery that cannot be written, before anything is computed.

    Raises:
        InputError: heat maps without a gallery, or of a classifier that has none.
        OutputExistsError: the page is there.
    """
    if out is None and attention:
        raise InputError.of(found="--attention without --gallery", expected="a page for it", fix="add --gallery FILE")
    if attention:
        check_attention(load_classifier(classifier))
    if out is not None:
        refuse_existing(out, overwrite=overwrite, option="--gallery")


@dataclass(slots=True)
class _Survey:
    """Counts of all objects, and the candidates for thumbnails."""

    numbers: Counter[str] = field(default_factory=Counter)
    bars: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    certain: dict[str, Picks] = field(default_factory=dict)
    uncertain: dict[str, Picks] = field(default_factory=dict)
    disagree: Picks = field(default_factory=lambda: np.zeros(0, _PICK))
    annotated: int = 0


@verb()
def write_gallery(
    images: Sequence[str],
    labels: str,
    classifier: str,
    out: str,
    *,
    execution: Execution | None = None,
    attention: bool = False,
    cancel: threading.Event | None = None,
) -> str:
    """Write a page of thumbnails of classified images; return its path.

    Args:
        attention: also show, next to each thumbnail, a map of where the network looked.

    Raises:
        InputError: the images were not classified, or the classifier has no maps.
        OutputError: the page cannot be written.
    """
    trained = load_classifier(classifier)
    if attention:
        check_attention(trained)
    settings = [label_setting(address, labels, execution or Execution()) for address in images]
    survey = _surveyed(settings, labels, trained.config.classes)
    thumbnails = _Thumbnails(settings, labels, trained, attention, execution or Execution())
    page = render_gallery(_data(survey, thumbnails))
    put_file(out, page.encode())
    return str(out)


def _surveyed(settings: Sequence[LabelSetting], labels: str, classes: Sequence[str]) -> _Survey:
    survey = _Survey()
    most = int(np.clip(_ALL // (2 * len(classes)), _LEAST, _MOST))
    columns = ["label", "class", "class_prob", "class_source", *(f"prob_{name}" for name in classes)]
    for i, setting in enumerate(settings):
        require_table(setting.image.address, labels)
        for batch in read_batches(setting.image.address, labels, columns=columns):
            if batch.num_columns != len(columns):
                raise InputError.of(
                    found=f"{setting.image.address}: a table without {', '.join({*columns} - {*batch.schema.names})}",
                    expected="the columns of this classifier",
                    fix="sketchscale classify apply",
                )
            _add_batch(survey, i, batch, classes, most)
    for name in survey.certain:
        shown = np.isin(survey.uncertain[name], survey.certain[name])
        survey.uncertain[name] = survey.uncertain[name][~shown]
    return survey


def _add_batch(survey: _Survey, image: int, batch: pyarrow.RecordBatch, classes: Sequence[str], most: int) -> None:
    """Count the objects of a batch, and keep the best candidates so far."""
    picks = np.zeros(batch.num_rows, _PICK)
    picks["image"], picks["label"] = image, batch.column("label").to_numpy()
    picks["probability"] = batch.column("class_prob").to_numpy(zero_copy_only=False)
    found = np.stack([batch.column(f"prob_{name}").to_numpy() for name in classes])
    picks["choice"] = found.argmax(axis=0) if batch.num_rows else 0
    user = pyarrow.compute.equal(batch.column("class_source"), "user").to_numpy(zero_copy_only=False)
    survey.annotated += int(user.sum())
    named = batch.column("class").dictionary_encode()
    code, names = named.indices.to_numpy(), named.dictionary.to_pylist()
    chosen = np.array([classes.index(name) if name in classes else -1 for name in names], np.int64)
    for k, name in enumerate(names):
        mine = picks[code == k]
        survey.numbers[name] += len(mine)
        bars = np.histogram(mine["probability"], BINS, (0, 1))[0]
        survey.bars[name] = survey.bars.get(name, np.zeros(BINS, np.int64)) + bars
        sure = mine[np.isfinite(mine["probability"])]
        survey.certain[name] = _first([survey.certain.get(name), sure], most, -1)
        survey.uncertain[name] = _first([survey.uncertain.get(name), sure], most, 1)
    differs = user & (chosen[code] != picks["choice"]) if len(names) else user
    survey.disagree = _first([survey.disagree, picks[differs]], most, 1)


def _first(parts: Sequence[Picks | None], most: int, sign: int) -> Picks:
    """Return the first few by probability (the largest for sign -1), then by image and label."""
    picks = np.concatenate([part for part in parts if part is not None])
    return picks[np.lexsort((picks["label"], picks["image"], sign * picks["probability"]))[:most]]


def _data(survey: _Survey, thumbnails: _Thumbnails) -> GalleryData:
    trained = thumbnails.trained
    classes = sorted({*trained.config.classes, *survey.numbers})
    colors = class_colors_of(classes, trained.provenance)
    none, held_out = np.zeros(0, _PICK), trained.provenance.get("held_out")
    return GalleryData(
        title=f"Classes of {thumbnails.labels}",
        images=len(thumbnails.settings),
        classes=tuple(
            GalleryClass(
                name=name,
                color=colors[name],
                n=survey.numbers[name],
                by_probability=tuple(survey.bars.get(name, np.zeros(BINS, np.int64)).tolist()),
                certain=thumbnails.of(survey.certain.get(name, none), colors[name]),
                uncertain=thumbnails.of(survey.uncertain.get(name, none), colors[name]),
            )
            for name in classes
        ),
        disagreements=thumbnails.of(survey.disagree, "#8d99a6", is_disagreement=True),
        annotated=survey.annotated,
        confusion=None if not held_out else (trained.config.classes, tuple(map(tuple, held_out["confusion"]))),
        facts={
            "sketchscale": __version__,
            "classifier": trained.sha256[:16],
            "kind": trained.config.kind,
            "channels": ", ".join(trained.config.channels),
            **({"patch": f"{trained.config.side} px"} if trained.needs_patches else {}),
            **{f"image {i + 1}": one.image.address for i, one in enumerate(thumbnails.settings[:8])},
        },
    )


class _Thumbnails:
    """Thumbnails of chosen objects; the percentiles of each image are counted once."""

    def __init__(
        self, settings: Sequence[LabelSetting], labels: str, trained: Classifier, attention: bool, execution: Execution
    ) -> None:
        self.settings, self.labels, self.trained = settings, labels, trained
        self.attention, self.execution = attention, execution
        self._percentiles: dict[int, tuple[tuple[float, float], ...]] = {}

    def of(self, picks: Picks, color: str, *, is_disagreement: bool = False) -> tuple[Thumbnail, ...]:
        """Return thumbnails in the order of the picks."""
        made: dict[int, Thumbnail] = {}
        for image in np.unique(picks["image"]).tolist():
            rows = np.flatnonzero(picks["image"] == image)
            made |= dict(zip(rows.tolist(), self._of_image(image, picks[rows], color, is_disagreement), strict=True))
        return tuple(made[i] for i in range(len(picks)))

    def _of_image(self, image: int, picks: Picks, color: str, is_disagreement: bool) -> Iterator[Thumbnail]:
        setting, trained = self.settings[image], self.trained
        columns = ["class", *window_columns("zyx"[-len(setting.plane.shape) :])]
        table = rows_of_labels(setting.image.address, self.labels, picks["label"], columns)
        side = trained.config.side if trained.needs_patches else estimate_side(table, picks["label"].tolist())
        shown = self._ranges(image)
        cut = shown if trained.needs_patches and trained.plane_ranges else ((0.0, 1.0),) * len(shown)
        seen = [(0.0, 1.0)] * len(shown) if cut is shown else shown
        windows, mirror = object_windows(table, side), trained.config.patches.mirror
        patches = read_patches(setting.labels.array(0), setting.plane, windows, cut, mirror=mirror)
        heats = grad_cam(trained, patches, picks["choice"]) if self.attention else None
        classes = table.column("class").to_pylist()
        for i, pick in enumerate(picks):
            flat = patches[i] if patches.ndim == 4 else patches[i, :, side // 2]
            found = trained.config.classes[pick["choice"]]
            yield thumbnail(
                flat[:-1],
                flat[-1],
                color=color,
                probability=float(pick["probability"]) if np.isfinite(pick["probability"]) else None,
                name=self._name(image, int(pick["label"])),
                note=f"you: {classes[i]}; found: {found}" if is_disagreement else "",
                ranges=seen,
                heat=None if heats is None else heats[i],
            )

    def _name(self, image: int, label: int) -> str:
        return (
            f"label {label}"
            if len(self.settings) == 1
            else f"{short_name(self.settings[image].image.address)}, label {label}"
        )

    def _ranges(self, image: int) -> tuple[tuple[float, float], ...]:
        """Return the percentiles with which an image was classified; count them where there are none."""
        if image not in self._percentiles:
            setting = self.settings[image]
            noted = reopen_ledger(setting.image.address, f"classify-{self.labels}").committed("result") or {}
            if self.trained.needs_patches and self.trained.plane_ranges and "ranges" in noted:
                self._percentiles[image] = tuple((low, high) for low, high in noted["ranges"])
            else:
                with Runner(self.execution) as runner:
                    self._percentiles[image] = plane_percentiles(setting, runner, None)
        return self._percentiles[image]
