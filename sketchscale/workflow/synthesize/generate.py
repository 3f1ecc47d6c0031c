"""Write image/label pairs made by a synthesis: a folder of OME-Zarr images that training reads like any other.

<out>/00000.zarr, 00001.zarr, ...   see synthesis.plan
<out>/sheet.png                     some of them with outlines
<out>/pairs.json                    how many, and what they were made of; written last
<out>/.sketchscale/generate/        the ledger of finished pairs, see io.ledger
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sketchscale import __version__
from sketchscale.config import Execution
from sketchscale.engine.base import Event, Plan
from sketchscale.errors import BudgetError, InputError, OutputExistsError
from sketchscale.geometry import Box
from sketchscale.inference.backend import Recipe
from sketchscale.io.ome_zarr.arrays import read_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.planes import read_plane
from sketchscale.io.runs.ledger import StoreLedger, open_ledger
from sketchscale.io.runs.partial_results import put_arrays
from sketchscale.io.stores.addresses import absolute_address, join_address
from sketchscale.io.stores.blobs import check_key, delete_blob, delete_blobs, get_blob, list_blobs, put_blob
from sketchscale.io.stores.documents import parse_json
from sketchscale.io.stores.output_files import list_names
from sketchscale.options import GenerateOptions
from sketchscale.reports.sheet import Crop, contact_sheet
from sketchscale.synthesis.model import Synthesis, copy_synthesis, load_synthesis, synthesis_sha256
from sketchscale.synthesis.plan import (
    GIVEN_POINTS,
    PairsConfig,
    PairTask,
    channel_names,
    pair_bytes,
    pair_name,
    plan_pairs,
)
from sketchscale.workflow.precision import kept_by_run, settle_precision
from sketchscale.workflow.runner import Runner, StageLine, quiet
from sketchscale.workflow.segment.job import check_placement
from sketchscale.workflow.synthesize.clicked_images import read_separate_centres
from sketchscale.workflow.verbs import verb

__all__ = ["PAIRS", "GenerateResult", "generate", "plan_generate", "read_pairs"]

PAIRS, SHEET, RUN = "pairs.json", "sheet.png", "generate"
_SHOWN, _SHOWN_PX = 12, 256


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateResult:
    """Where the pairs are, how many there are, and how many objects they show."""

    out: str
    images: int
    objects: int
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What is known before the first pair is made."""

    options: GenerateOptions
    synthesis: Synthesis
    sha256: str
    fields: tuple[npt.NDArray[np.float64], ...]
    recipe: Recipe

    @property
    def points(self) -> str:
        """SHA-256 of the given points, file by file; "" without any."""
        parts = (hashlib.sha256(field.tobytes()).digest() for field in self.fields)
        return hashlib.sha256(b"".join(parts)).hexdigest() if self.fields else ""

    def fingerprint(self) -> dict[str, str]:
        """Return what the pairs depend on, for the ledger."""
        o = self.options
        return {
            "code": __version__,
            "synthesis": self.sha256,
            "points": self.points,
            "recipe": json.dumps({"device": o.device.partition(":")[0], "precision": self.recipe.precision}),
            **{name: str(getattr(o, name)) for name in ("images", "size", "seed", "labels")},
        }

    def plan(self, folder: str) -> Plan[PairTask]:
        """Return the plan of the pairs, for workers that read the synthesis in `folder`."""
        o, nets = self.options, (self.synthesis.generator, self.synthesis.masker)
        config = PairsConfig(
            out=o.out,
            synthesis=folder,
            sha256=self.sha256,
            size=o.size,
            seed=o.seed,
            labels=o.labels,
            recipe=self.recipe,
            points=self.points,
        )
        weights = sum(4 * p.numel() for net in nets for p in net.parameters())
        return plan_pairs(config, o.images, pair=_pair_bytes(self.synthesis, o), weight_bytes=2 * weights)


@verb({"pairs": 1})
def generate(
    options: GenerateOptions,
    execution: Execution | None = None,
    on_event: Callable[[Event], None] = quiet,
    *,
    cancel: threading.Event | None = None,
) -> GenerateResult:
    """Make pairs; another engine, or an interrupted and resumed run, writes the same bytes.

    Raises:
        MissingDataError: there is no synthesis.
        InputError: it is damaged, or the given points are invalid; nothing was written.
        BudgetError: a pair takes more memory than `execution` allows.
        OutputExistsError: the folder is not empty.
    """
    execution = execution or Execution()
    job = _prepare(options, execution)
    out = job.options.out
    names = list_names(out)
    foreign = [name for name in names if not _is_ours(name)]
    if foreign or (names and not list_blobs(out, f".sketchscale/{RUN}")):  # the ledger refuses what is ours
        raise OutputExistsError(
            f"{out} holds {(foreign or names)[0]} and was not made by synthesize generate; "
            f"expected: a new folder; to fix: another --out"
        )
    with (
        Runner(execution, on_event) as runner,
        open_ledger(
            out,
            RUN,
            job.fingerprint(),
            resume=execution.resume,
            overwrite=execution.overwrite,
            outputs=("",),
            scratch=execution.scratch or "",
            clear=lambda: _clear(out),
        ) as ledger,
    ):
        if ledger.committed("result") is None:
            _make(job, runner, ledger)
        ledger.clear_scratch()
        found = ledger.committed("result")
    return GenerateResult(out=options.out, **(found or {}))


@verb()
def plan_generate(options: GenerateOptions, execution: Execution | None = None) -> tuple[StageLine, ...]:
    """Return the stages that `generate` would run; nothing is written."""
    execution = execution or Execution()
    with Runner(execution) as runner:
        runner.dry(_prepare(options, execution).plan(options.synthesis))
        return tuple(runner.stages)


def _pair_bytes(synthesis: Synthesis, options: GenerateOptions) -> int:
    return pair_bytes(synthesis.config, options.size, synthesis.points.densest)


def _prepare(options: GenerateOptions, execution: Execution) -> _Job:
    check_placement(options.device, execution)
    if "/" in check_key(options.labels, what="label name"):
        raise InputError.of(found=f"label name {options.labels!r}", expected="a name without '/'", fix="another name")
    synthesis = load_synthesis(options.synthesis)
    need, most = _pair_bytes(synthesis, options), execution.budget_bytes
    if most is not None and need > most:
        raise BudgetError(
            f"a pair of {options.size} px takes {need / 1e9:.2f} GB; expected: at most {most / 1e9:.2f} GB; "
            f"to fix: a smaller --size, or a larger --memory"
        )
    placed = replace(options, out=absolute_address(options.out))
    # files of points do not say how large their images are
    fields = tuple(read_separate_centres(path, (1 << 24, 1 << 24)) for path in options.points)
    kept = kept_by_run(placed.out, RUN, resume=execution.resume)
    precision = settle_precision(options.precision, options.device, kept=kept)
    return _Job(
        options=placed,
        synthesis=synthesis,
        sha256=synthesis_sha256(options.synthesis),
        fields=fields,
        recipe=Recipe(device=options.device, precision=precision),
    )


def _is_ours(name: str) -> bool:
    return name in (".sketchscale", PAIRS, SHEET) or re.fullmatch(r"\d{5}\.zarr", name) is not None


def _clear(out: str) -> None:
    """Remove the pairs, and first the files that describe them."""
    for name in (PAIRS, SHEET):
        delete_blob(out, name)
    for name in list_names(out):
        if name.endswith(".zarr") and _is_ours(name):
            delete_blobs(out, name)


def _make(job: _Job, runner: Runner, ledger: StoreLedger) -> None:
    options = job.options
    folder = copy_synthesis(options.synthesis, join_address(ledger.scratch, "synthesis"))
    if job.fields:
        put_arrays(folder, GIVEN_POINTS, {f"{n:05d}": field for n, field in enumerate(job.fields)})
    results = runner.run(job.plan(folder), ledger)
    objects = sum(result["objects"] for result in results)
    put_blob(options.out, SHEET, _draw_sheet(options))
    about = {
        "images": options.images,
        "size": options.size,
        "seed": options.seed,
        "labels": options.labels,
        "channels": list(channel_names(job.synthesis.config.generator.channels)),
        "objects": objects,
        "synthesis": job.sha256,
        "points": job.points,
        "precision": job.recipe.precision,
        "versions": {"sketchscale": __version__, "torch": str(torch.__version__), "numpy": np.__version__},
        "provenance": f"{options.images} pairs of {options.size} px with seed {options.seed}, drawn from synthesis "
        f"{job.sha256[:12]} by sketchscale {__version__}{' on given points' if job.fields else ''}",
    }
    put_blob(options.out, PAIRS, (json.dumps(about, indent=1, sort_keys=True) + "\n").encode())
    summary = f"{options.out}: {options.images} pairs of {options.size} px with {objects} objects"
    ledger.commit("result", {"images": options.images, "objects": objects, "summary": summary})


def read_pairs(folder: str) -> dict[str, Any] | None:
    """Return the content of `pairs.json` in a folder of pairs; None where there is no such file.

    Raises:
        InputError: it does not read, or lacks the number of images or the name of the labels.
    """
    data = get_blob(folder, PAIRS)
    if data is None:
        return None
    found = parse_json(data, join_address(folder, PAIRS))
    count = found.get("images")
    if not isinstance(count, int) or count < 1 or not isinstance(found.get("labels"), str):
        raise InputError.of(
            found=f"{folder}/{PAIRS} does not say how many images there are",
            expected="what synthesize generate wrote",
            fix="copy the folder again, or generate it again",
        )
    return found


def _draw_sheet(options: GenerateOptions) -> bytes:
    """Draw windows of some pairs, spread evenly over all."""
    count, side = min(_SHOWN, options.images), min(_SHOWN_PX, options.size)
    box = Box((0, 0), (side, side))
    crops = []
    for number in np.linspace(0, options.images - 1, count).astype(int):
        image = open_image(join_address(options.out, pair_name(number)))
        pixels = read_plane(image.plane(), box, tuple(range(len(image.channels))))
        labels = read_box(image.label_ref(options.labels), box)
        crops.append(Crop(pixels=(pixels / 255).astype(np.float32), labels=labels, caption=pair_name(number)))
    return contact_sheet(crops, columns=4)
