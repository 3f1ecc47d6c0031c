"""Write benchmarks/README.md from what the benchmarks printed.

    python benchmarks/write_figures.py

The output of each benchmark is kept in benchmarks/results; a file that was condensed by hand states so in its first
line. Questions and what was asked for are here. What was found is cut out of the output, so that the table cannot drift
from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
START, END = "<!-- figures -->", "<!-- end of figures -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One benchmark.

    Attributes:
        file: in benchmarks/results, without .txt.
        question: that it answers.
        asked: of the figure; "-" where nothing was asked.
        found: a text with {} for each group that `pattern` finds.
        pattern: regular expression into the output, over several lines.
        command: without `python benchmarks/`.
    """

    file: str
    question: str
    asked: str
    found: str
    pattern: str
    command: str

    @property
    def output(self) -> str:
        """What the benchmark printed."""
        return (HERE / "results" / f"{self.file}.txt").read_text("utf-8").strip()

    @property
    def answer(self) -> str:
        """What was found, from the output."""
        match = re.search(self.pattern, self.output, re.DOTALL)
        if match is None:
            raise ValueError(f"results/{self.file}.txt has nothing like {self.pattern!r}")
        return self.found.format(*match.groups())


FIGURES = (
    Figure(
        file="first_hour",
        question="Is the demo quick and right on a processor with AVX2 only?",
        asked="150 s; mean AP 0.5 of .88",
        found="{} s, AP {} (first of three seeds)",
        pattern=r"\| 0 \| 0 \| (\d+) \|[^|]*\| ([\d.]+) \|",
        command="first_hour.py --avx2 demo",
    ),
    Figure(
        file="minutes",
        question="What do strokes on 20 objects teach in 75 s, on six images like the drawn one?",
        asked="mean AP 0.5 of .62, worst .45",
        found="{}, worst pick {}",
        pattern=r"479 \| ([\d.]+) ± [\d.]+ \| ([\d.]+)",
        command="minutes.py --avx2",
    ),
    Figure(
        file="nuclei_fluo",
        question="How good is the shipped model on 50 images it never saw?",
        asked="AP 0.5 of .85",
        found="{} (AP 0.75 {})",
        pattern=r"the model's[^|]*\| ([\d.]+) \| ([\d.]+)",
        command="nuclei_fluo.py",
    ),
    Figure(
        file="unknown_kinds",
        question="Does `segment` warn of kinds of images that the model does not know?",
        asked="of 90 %, of at most 2 % of its own",
        found="of {}; of {} of its own",
        pattern=r"contrast \| \d+ \| \d+ \(([\d.]+%)\).*?nuclei \| \d+ \| \d+ \(([\d.]+%)\) \| 27",
        command="unknown_kinds.py",
    ),
    Figure(
        file="plate_8000",
        question="The whole job on a plate of 8000 x 8000 px",
        asked="2 GB; AP 0.5 of .85",
        found="segment {} s, {} GB; AP {}",
        pattern=r"\| segment \| ([\d.]+) \| ([\d.]+).*AP 0.5 ([\d.]+)",
        command="plate.py",
    ),
    Figure(
        file="plate_16000",
        question="The same on four times the pixels",
        asked="at most 10 % more memory",
        found="{} GB beside 0.99",
        pattern=r"\| segment \| [\d.]+ \| ([\d.]+)",
        command="plate.py --size 16000",
    ),
    Figure(
        file="sketch",
        question="Strokes on 20 objects, random weights, 5 minutes",
        asked="mean AP 0.5 of .75",
        found="{}",
        pattern=r"AP\.5 ([\d.]+ \+- [\d.]+)",
        command="sketch.py",
    ),
    Figure(
        file="interior",
        question="What do strokes inside objects teach, beside full outlines of the same objects?",
        asked=".85 of the AP of outlines, points .65",
        found="{}; points {} (5 minutes, the hardest of three seeds)",
        pattern=r"interior: ([\d.]+) of full.*?points: ([\d.]+) of",
        command="interior.py",
    ),
    Figure(
        file="widths",
        question="Are the bounds beside boundary strokes right, at any width, and what do they teach?",
        asked="0 violated, two-sided 80 %; lines of 1 px lose at most .01",
        found="{} of {}, at least {}; AP 0.5 {} and {} before (radius 3: {} and {})",
        pattern=r"(\d+) of (\d+) bounds violated; the least two-sided share of any sketch ([\d.]+)"
        r".*?exact \| regions \| \d \| ([\d.]+).*?exact \| equalities[^|]*\| \d \| ([\d.]+)"
        r".*?3 \| regions \| \d \| ([\d.]+).*?3 \| equalities[^|]*\| \d \| ([\d.]+)",
        command="widths.py",
    ),
    Figure(
        file="rules",
        question="Does one rule join the fragments of objects on exact fields, and on a network's, too?",
        asked="exact: bacteria .97, phase .96, fluorescence .987, rods .97",
        found="{}, {}, {}, {}",
        pattern=r"omnipose_samples \(5\) \| ([\d.]+).*?usiigaci_phase \(11\) \| ([\d.]+)"
        r".*?dsb2018_fluo \(12\) \| ([\d.]+).*?rods \(6\) \| ([\d.]+)",
        command="rules.py table",
    ),
    Figure(
        file="accuracy",
        question="What do partial annotation and each loss cost? (nuclei, loss sketchpose)",
        asked="10 % of the pixels: at most .02; 1 %: .06",
        found="{}; {}",
        pattern=r"sketchpose \| 10 %(?:[^|]*\|){5} ([\d. ±]+) \|.*?sketchpose \| 1 %(?:[^|]*\|){5} ([\d. ±]+) \|",
        command="accuracy.py",
    ),
    Figure(
        file="transfer",
        question="Twelve strokes on a kind of image that the model never saw, other images",
        asked="AP 0.5 + .15",
        found="phase {}, bright field {}",
        pattern=r"others: mean (\+[\d.]+).*others: mean (\+[\d.]+)",
        command="transfer.py",
    ),
    Figure(
        file="training_step",
        question="A training step beside its bare network",
        asked="at most 1.15 times",
        found="{} to {} times",
        pattern=r'"ratio": ([\d.]+).*?"ratio": [\d.]+.*?"ratio": ([\d.]+)',
        command="training_step.py",
    ),
    Figure(
        file="precision",
        question="The precision that auto chooses beside the better one",
        asked="at most 1.05 times",
        found="{} times",
        pattern=r'"ratio": ([\d.]+)',
        command="precision.py",
    ),
    Figure(
        file="noise",
        question="Integration of exact flows with noise 0.5, 10 seeds",
        asked="AP 0.5 of .97",
        found="white {}, smooth {}",
        pattern=r"\| white \| ([\d.]+).*?3 px \| ([\d.]+)",
        command="integration.py --noise",
    ),
    Figure(
        file="integration",
        question="Fields to labels, beside Cellpose 4",
        asked="5 times as fast, half the memory",
        found="{} times, {} of the memory",
        pattern=r"([\d.]+) x \| ([\d.]+)",
        command="integration.py --peer",
    ),
    Figure(
        file="objects",
        question="Measuring and classifying 17,000 objects",
        asked="5 times as fast as scikit-image; 1.5 GB",
        found="{:.3} times; {:.4} GB",
        pattern=r'"times_faster": ([\d.]+).*"train_gb": ([\d.]+)',
        command="objects.py",
    ),
    Figure(
        file="many_objects",
        question="A million objects",
        asked="2 GB; time per object flat within 20 %",
        found="{1} GB; {0} of the time of the smallest",
        pattern=r"1,000,000 \| \d+ \| \d+ \| ([\d.]+) \| [\d.]+ \| ([\d.]+)",
        command="many_objects.py",
    ),
    Figure(
        file="object_tasks",
        question="Classes of drawn textures and spots from 100 labels",
        asked="discs .98, spots .95",
        found="{}, {} (light)",
        pattern=r"discs, kind: light.*?accuracy: ([\d.]+).*?spots, kind: light.*?accuracy: ([\d.]+)",
        command="object_tasks.py",
    ),
    Figure(
        file="object_accuracy",
        question="Classes of real objects from 100 labels",
        asked=".95",
        found="blood cells {1}, source of a nucleus {0} (the ceiling by size is .953)",
        pattern=r"plate \| ensemble(?:[^|]*\|){4} ([\d.]+).*?bccd \| ensemble(?:[^|]*\|){4} ([\d.]+)",
        command="object_accuracy.py",
    ),
    Figure(
        file="start",
        question="What does the start find before the first stroke, at the scale that it finds by itself?",
        asked="fluorescence: AP 0.5 of .80",
        found="fluorescence {}, stained tissue {}, phase contrast {}, bright field {}",
        pattern=r"fluo \| 50 \| ([\d.]+).*?he \| 15 \| ([\d.]+).*?phase \| 3 \| ([\d.]+).*?field \| 3 \| ([\d.]+)",
        command="start.py --data DATA --untouched",
    ),
    Figure(
        file="volumes",
        question="What do strokes in three planes of ten objects teach a network of volumes?",
        asked="AP 0.5 of .80 on the other half, 10 min of two cores, 4 GB",
        found="{4}; {0} steps, {2} processor s, {3} GB in training",
        pattern=r"\| 10 \| [\d.]+% \| (\d+) \| ([\d.]+) \| \d+ \| (\d+) \| ([\d.]+) \| ([\d.]+) \|",
        command="volumes.py --work DIR",
    ),
    Figure(
        file="volume_classes",
        question="Five classes of objects of a volume, by shape and intensity in two channels",
        asked="-",
        found="{} (light), {} (forest)",
        pattern=r"light \| \d+ \| ([\d.]+).*?random-forest \| \d+ \| ([\d.]+)",
        command="volume_classes.py --work DIR",
    ),
    Figure(
        file="synthesis",
        question="Segmenters trained from one point in each object (stained tissue)",
        asked="AJI .10 above dots, 85 % of dense labels",
        found="{} above, {} of dense",
        pattern=r"\| points \| 3 \| \S+ ± \S+ \| ([\d.]+) ± \S+ \| ([\d.]+)",
        command="synthesis.py",
    ),
    Figure(
        file="layouts",
        question="Layouts drawn around points",
        asked="50,000 objects a minute",
        found="{} to {}",
        pattern=r"50000 +[\d.]+ +([\d,]+).*50000 +[\d.]+ +([\d,]+)",
        command="layouts.py",
    ),
    Figure(
        file="synthetic_step",
        question="What scenes painted during training add to a step",
        asked="-",
        found="{} times the processor time",
        pattern=r'"share": 0.5.*?"cpu_ratio": ([\d.]+)',
        command="synthetic_step.py",
    ),
    Figure(
        file="watershed",
        question="h/v maps to labels, beside the flow",
        asked="-",
        found="{1} Mpx/s beside {0}",
        pattern=r"flow +1024 +([\d.]+).*?hover +1024 +([\d.]+)",
        command="watershed.py",
    ),
    Figure(
        file="engines",
        question="What an engine costs over the serial loop, one worker",
        asked="10 % per tile, 15 ms per task",
        found="processes {} %, {} ms; ray {} %, {} ms",
        pattern=r"processes +[\d.]+ +(\S+) % +([\d.]+).*ray +[\d.]+ +(\S+) % +([\d.]+)",
        command="engines.py",
    ),
    Figure(
        file="scale",
        question="From a hundred to a million blocks, and what a screen would cost",
        asked="driver of 1 GB and 200 B an object",
        found="{} MB at 100,000 blocks, 601,665 objects",
        pattern=r"100000 +\d+ +- +- +\d+ +\d+ +(\d+)",
        command="scale.py",
    ),
    Figure(
        file="storage_faults",
        question="Nineteen faults of object storage in four kinds of operation",
        asked="identical or a typed error, none silent",
        found="{} identical, silent {}",
        pattern=r"(\d+) identical.*key: (\d+)",
        command="storage_faults.py",
    ),
)
"""In the order of the page; a file that is missing is a figure that is missing."""


def section() -> Iterator[str]:
    """Lines of the table, then each output under its question."""
    yield "| question | asked | found | command |"
    yield "|---|---|---|---|"
    for figure in FIGURES:
        yield f"| [{figure.question}](#{figure.file}) | {figure.asked} | {figure.answer} | `{figure.command}` |"
    for figure in FIGURES:
        yield f'\n### <a id="{figure.file}"></a>{figure.question}\n'
        yield f"`python benchmarks/{figure.command}`\n\n```\n{figure.output}\n```"


def with_figures(page: str) -> str:
    """The page with its section replaced."""
    text = f"{START}\n\n" + "\n".join(section()) + f"\n\n{END}"
    return re.sub(f"{START}.*?{END}", lambda match: text, page, flags=re.DOTALL)


if __name__ == "__main__":
    path = HERE / "README.md"
    path.write_text(with_figures(path.read_text("utf-8")), "utf-8")
