"""Run the whole workflow on images that come with the package.

    convert ─▶ sketch ─▶ train ─▶ segment ─▶ measure ─▶ classify ─▶ evaluate ─▶ report

The sketch is on one fluorescence image. The model trained on it segments the others, which are compared with the truth.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal

from sketchscale.annotations.sketch import open_sketch
from sketchscale.config import ClassifyOptions, Execution, SegmentOptions, TrainOptions
from sketchscale.errors import OutputExistsError, QualityError
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.objects.annotation.examples import hit_labels
from sketchscale.objects.annotation.mark_files import read_marks
from sketchscale.workflow.classify.apply import apply_classes, train_classes
from sketchscale.workflow.compiling import MEASUREMENT, compiling_line
from sketchscale.workflow.convert import convert_images
from sketchscale.workflow.measure.count import count
from sketchscale.workflow.measure.evaluate import evaluate
from sketchscale.workflow.measure.measure import measure
from sketchscale.workflow.report.report import draw_sketch, write_report
from sketchscale.workflow.segment.segment import segment
from sketchscale.workflow.train.train import train

__all__ = ["demo"]

_LABELS = "nuclei"


def demo(
    out: str,
    *,
    minutes: float = 1.25,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    seed: int = 0,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Run everything in a new folder.

    Args:
        minutes: of training.
        precision: of every network; auto measures which is faster here.
        seed: of weights and patches, of the model and of the classifier.
        say: called with a line for each step.

    Returns:
        Paths of report and model, counts, and the accuracy (AP at IoU 0.5) of each image without a sketch, for the
        model trained here and for the shipped one.

    Raises:
        OutputExistsError: the folder is there.
        QualityError: not one nucleus was found on the five images; the report is written all the same.
    """
    folder = Path(out)
    if folder.exists():
        if not overwrite:
            raise OutputExistsError(f"{out} is there already; expected: a new folder; to fix: --out, or --overwrite")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    with as_file(files("sketchscale") / "samples" / "fluorescence") as samples:
        shutil.copytree(samples, folder / "samples")
    return _Demo(folder, minutes, precision, seed, say).run()


def keep_hits(image: str, labels: str, clicks: str, out: str) -> int:
    """Write only the clicks that hit an object, and one for each object; return the number of classes among them."""
    marks = read_marks(clicks)
    hits = hit_labels(marks, open_image(image).label_image(labels).array(0))
    kept: dict[int, str] = {}
    for mark, label in zip(marks, hits, strict=True):
        if label:
            kept.setdefault(label, mark.name)
    lines = [f"{label},{name}" for label, name in sorted(kept.items())]
    Path(out).write_text("\n".join(["label,class", *lines]) + "\n", "utf-8")
    return len(set(kept.values()))


class _Demo:
    """The steps, each reported before it runs."""

    def __init__(
        self,
        folder: Path,
        minutes: float,
        precision: Literal["auto", "float32", "bfloat16"],
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        self.folder, self.minutes, self.say = folder, minutes, say
        self.precision, self.seed = precision, seed
        self.started = time.perf_counter()

    def step(self, line: str) -> None:
        """Report a step with the time since the start."""
        self.say(f"[{time.perf_counter() - self.started:5.0f} s] {line}")

    def run(self) -> dict[str, Any]:
        """Run all steps."""
        samples = self.folder / "samples"
        self.step("convert: five PNG images to OME-Zarr")
        images = [r["address"] for r in convert_images(str(samples / "images"), str(self.folder / "images"))]
        truths = [str(path) for path in sorted((samples / "masks").glob("*.png"))]
        model = self._train(images[0], str(samples / "sketch.jsonl"))
        self.step("segment and measure: every nucleus on all five images, with the model just trained")
        options = SegmentOptions(model=model, labels=_LABELS, precision=self.precision)
        for image in images:
            found = segment(image, options)
            if line := compiling_line(*MEASUREMENT):
                self.step(line)
            measure(image, _LABELS)
            self.step(f"  {Path(image).name}: {found.n} nuclei")
        classes = self._classify(images, str(samples / "classes.csv"))
        rows = [row for image in images for row in count(image, _LABELS)]
        accuracy = self._compare(images, truths)
        report = write_report(
            images, _LABELS, str(self.folder / "report.html"), title="Nuclei of the demo", model=model, truths=truths
        )
        if not any(row["n"] for row in rows):
            steps = self.trained.steps
            why = self.trained.warning or f"the training made {steps} steps, which were enough on other machines"
            raise QualityError(
                f"no nucleus was found on five images, see {report}; expected: at least those that the sketch "
                f"outlines; {why}; to fix: more --minutes (now {self.minutes:g}), --precision float32, or see "
                f"`sketchscale doctor`"
            )
        self.step("done")
        return {"report": report, "model": model, "classes": classes, "counts": rows, "accuracy": accuracy}

    def _train(self, image: str, sketch: str) -> str:
        drawn = open_sketch(sketch, shape=open_image(image).plane().section)
        picture = draw_sketch(drawn, image, str(self.folder / "sketch.png"))
        summary = drawn.summary()
        self.step(f"sketch: {summary.objects} objects outlined on one image, see {picture}")
        self.step(f"train: {self.minutes:g} minutes from the shipped start")
        model = str(self.folder / "model")
        options = TrainOptions(
            images=(image,),
            sketches=(sketch,),
            out=model,
            minutes=self.minutes,
            precision=self.precision,
            seed=self.seed,
        )
        self.trained = train(options, on_step=lambda line: self.say(f"          {line}"))
        self.step(self.trained.summary)
        return model

    def _classify(self, images: list[str], clicks: str) -> str | None:
        """Return the classifier's folder; None where a model of a few steps found too few of the clicked objects."""
        classifier, found = str(self.folder / "classes"), str(self.folder / "samples" / "classes_found.csv")
        if keep_hits(images[0], _LABELS, clicks, found) < 2:
            self.step("classify: left out, the model found too few of the annotated nuclei; --minutes trains longer")
            return None
        result = train_classes(
            images[0], _LABELS, found, classifier, ClassifyOptions(precision=self.precision, seed=self.seed)
        )
        self.step(f"classify: {result.summary}")
        for image in images:
            apply_classes(image, _LABELS, classifier, precision=self.precision)
        return classifier

    def _compare(self, images: list[str], truths: list[str]) -> dict[str, dict[str, float]]:
        """Return AP at IoU 0.5 against the shipped truth, of the model trained here and of the shipped one."""
        self.step("evaluate: against the true outlines, and the shipped model nuclei-fluo for comparison")
        shipped = SegmentOptions(model="nuclei-fluo", labels="nuclei-fluo", precision=self.precision)
        scores: dict[str, dict[str, float]] = {}
        for image, truth in zip(images[1:], truths[1:], strict=True):
            segment(image, shipped, Execution())
            own, other = (evaluate(image, name, truth)["ap"]["0.5"] for name in (_LABELS, "nuclei-fluo"))
            scores[Path(image).name] = {"sketch": own, "nuclei-fluo": other}
            self.step(f"  {Path(image).name}: AP 0.5 {own:.3f} from strokes, {other:.3f} with nuclei-fluo")
        return scores
