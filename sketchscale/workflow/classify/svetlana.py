"""Import from SVETLANA: its annotations become marks, its networks classifiers.

The content of a file decides what it is. Marks are written as CSV with a point on each object, so they fit the same
objects under other ids, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sketchscale import __version__
from sketchscale.errors import InputError
from sketchscale.io.stores.output_files import require_local
from sketchscale.objects.classifiers import save_classifier
from sketchscale.objects.classifiers.pickles import read_pickle
from sketchscale.objects.classifiers.svetlana import is_labels, svetlana_classifier, svetlana_marks
from sketchscale.workflow.csv_file import put_csv
from sketchscale.workflow.runner import refuse_existing

__all__ = ["import_svetlana"]


def import_svetlana(
    file: str,
    out: str,
    *,
    classes: Sequence[str] = (),
    channels: Sequence[str] = (),
    side: int | None = None,
    normalization: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Import a file of SVETLANA as marks or as a classifier; no code in it is run.

    Args:
        file: `Svetlana/labels`, or a network (`.pth`).
        out: CSV file for annotations, folder for a network.
        classes: names in the order of the keys; `class_1`, ... when empty.
        channels: of the images that a network reads; needed for a network.
        side, normalization: of a network's patches, where the file does not give them; see `svetlana_classifier`.

    Returns:
        `out`, `kind` ("marks" or "classifier"), `classes`, `side` of the patches, and the number `n` of marks.

    Raises:
        InputError: the file is refused, or channels are missing.
        OutputExistsError: `out` is there.
        OutputError: it cannot be written.
    """
    require_local(out)
    refuse_existing(out, overwrite=overwrite)
    content = read_pickle(file)
    if is_labels(content):
        marks = svetlana_marks(file, content, classes)
        axes = ("y", "x") if all(len(mark.point) == 2 for mark in marks) else ("z", "y", "x")
        rows = ((mark.image, *(f"{value:.10g}" for value in mark.point), mark.name) for mark in marks)
        put_csv(out, ["image", *axes, "class"], rows)
        found = sorted({mark.name for mark in marks})
        return {"out": out, "kind": "marks", "n": len(marks), "classes": found, "side": content.get("patch_size")}
    if not channels:
        raise InputError.of(
            found=f"{file}: a network, and no channels",
            expected="the name of each channel of the images, without the mask",
            fix="--channel, once for each",
        )
    network = svetlana_classifier(
        file, content, channels=channels, classes=classes, side=side, normalization=normalization
    )
    about = {**network.provenance, "sketchscale": __version__}
    save_classifier(out, replace(network, provenance=about))
    config = network.config
    return {"out": out, "kind": "classifier", "classes": list(config.classes), "side": config.side}
