"""The Snakemake rule and the Nextflow process: their commands are cut out and run, with the real program."""

from __future__ import annotations

import json
import os
import re
import shlex
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.artefacts import DEPLOY
from tests.workflow.finished import files_of

SNAKEFILE = (DEPLOY / "snakemake" / "Snakefile").read_text()
NEXTFLOW = (DEPLOY / "nextflow" / "main.nf").read_text()


class Quoting(string.Formatter):
    """Fills in placeholders as Snakemake does: `:q` is quoted for the shell."""

    def format_field(self, value: Any, format_spec: str) -> str:
        return shlex.quote(str(value)) if format_spec == "q" else format(value, format_spec)


class Named:
    """What `{input.image}` reads from."""

    def __init__(self, **names: object) -> None:
        self.__dict__.update(names)


def block(text: str, before: str) -> str:
    """The triple-quoted text after a word."""
    match = re.search(rf'{before}:.*?"""(.*?)"""', text, flags=re.DOTALL)
    assert match
    return match[1]


def snakemake_command(image: Path, model: str, results: Path) -> str:
    """The rule's shell command for an image."""
    name = image.name.removesuffix(".zarr")
    return Quoting().format(
        block(SNAKEFILE, "shell"),
        input=Named(image=image),
        output=Named(segment=results / f"{name}.segment.json", measure=results / f"{name}.measure.json"),
        params=Named(model=model, device="cpu"),
        threads=1,
    )


def nextflow_command(image: Path, model: str, results: Path) -> str:
    """The process's script for an image, as Groovy would fill it in; it writes into the folder that it runs in."""
    assert "def name = image.replaceAll('[^A-Za-z0-9.]+', '_')" in NEXTFLOW
    values = {
        "image": str(image),
        "name": re.sub(r"[^A-Za-z0-9.]+", "_", str(image)),
        "params.model": model,
        "params.device": "cpu",
        "task.cpus": "1",
    }
    script = re.sub(r"\$\{([^}]+)\}", lambda match: values[match[1]], block(NEXTFLOW, "script"))
    return script.replace("\\\\\n", "\\\n")


def run(command: str, folder: Path) -> None:
    """As both tools do: a strict shell, with this environment's programs on the path."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr


def results_of(image: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of an image but the runs' records, with its time: written again, it is another."""
    found = {name: content for name, content in files_of(image).items() if ".sketchscale" not in name}
    return {name: ((image / name).stat().st_mtime_ns, content) for name, content in found.items()}


def counts(results: Path) -> list[int]:
    """Objects in the two reports of one image."""
    (segment,), (measure,) = results.glob("*.segment.json"), results.glob("*.measure.json")
    return [json.loads(path.read_text())[0]["n"] for path in (segment, measure)]


@pytest.mark.slow
def test_the_rule_does_the_job_and_the_process_finds_nothing_left_to_do(image: str, model: str, tmp_path: Path) -> None:
    there = Path(image).rename(tmp_path / "plate 1.zarr")
    ruled, processed = tmp_path / "rule", tmp_path / "process"
    ruled.mkdir()
    processed.mkdir()
    run(snakemake_command(there, model, ruled), ruled)
    objects, measured = counts(ruled)
    assert objects == measured
    assert (there / "labels" / "nuclei").is_dir()
    before = results_of(there)
    run(nextflow_command(there, model, processed), processed)
    assert counts(processed) == [objects, measured]
    assert results_of(there) == before, "what is finished is not done again"


def test_snakemake_asks_for_what_the_rule_makes() -> None:
    asked = re.search(r'expand\(f"(.*?)"', SNAKEFILE)
    made = re.findall(r'(?:segment|measure)=f"(.*?)"', SNAKEFILE)
    assert asked
    assert asked[1] in made
    assert "ancient(" in SNAKEFILE, "labels written into the image must not make it new"
    assert block(SNAKEFILE, "shell").count("--resume") == 2


def test_nextflow_collects_what_the_script_writes_and_tries_again() -> None:
    assert "path('*.segment.json'), path('*.measure.json')" in NEXTFLOW
    assert re.search(r"errorStrategy .*'retry'", NEXTFLOW)
    assert "maxRetries" in NEXTFLOW
    assert "val image" in NEXTFLOW, "a staged copy would leave the labels in the work folder"
    assert block(NEXTFLOW, "script").count("--resume") == 2
