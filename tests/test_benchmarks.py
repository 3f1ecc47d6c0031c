"""Benchmarks run at their smallest size, so that they cannot rot; their figures are looked at elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("script", "arguments", "expected"),
    [
        ("plate.py", ["--tiny", "--work", "{folder}"], "verify: "),
        ("objects.py", ["--tiny"], "skimage_cpu_s"),
        ("object_tasks.py", ["--tiny"], "gradient-boosting"),
        ("integration.py", ["--tiny", "--work", "{folder}"], "suppressed"),
        ("where_next.py", ["--tiny"], "| where-next |"),
        ("integration.py", ["--tiny", "--noise", "--seeds", "1"], "white"),
        ("training_step.py", ["--tiny"], "cpu_ratio"),
        ("precision.py", ["--tiny"], "settle_s"),
        ("synthetic_step.py", ["--tiny"], '"share": 1.0'),
        ("space.py", ["--tiny"], "cut by a block"),
        ("watershed.py", ["--tiny"], "same labels"),
        ("engines.py", ["--tiny"], "ms / trivial task"),
        ("scale.py", ["--tiny"], "a slide of 100,000 px"),
        ("same_bytes.py", ["{root}", "{root}", "--only", "convert", "sketch"], "2 of 2 runs are the same"),
        ("house.py", [], "| all |"),
        ("walks.py", ["--verb", "measure"], "| measure |"),
        ("rules.py", ["rods", "--tiny"], "| rods (1) |"),
        ("volumes.py", ["--tiny", "--work", "{folder}"], "| objects drawn |"),
        ("volume_classes.py", ["--tiny", "--work", "{folder}"], "| random-forest |"),
        ("widths.py", ["bounds", "--images", "1", "--radii", "exact", "3"], "| shapes | 3 | 1.000 | 0.00000 (0) |"),
        ("unknown_kinds.py", ["--tiny"], "| stained (samples) | 3 | 3 (100.0%)"),
    ],
)
def test_a_benchmark_runs_at_its_smallest_size(
    tmp_path: Path, script: str, arguments: list[str], expected: str
) -> None:
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / script),
        *(a.format(folder=tmp_path, root=ROOT) for a in arguments),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert expected in result.stdout


def test_the_accuracy_table_is_made_of_finished_cells(tmp_path: Path, shared_data: Path) -> None:
    """Two cells on a few images, then the table; a cell that is there is not run again."""
    script = [sys.executable, str(ROOT / "benchmarks" / "accuracy.py")]
    cells = tmp_path / "cells.jsonl"
    command = ["train", "--data", str(shared_data), "--tiny", "--steps", "2", "--threads", "1", "--out", str(cells)]
    command += ["--runs", str(tmp_path / "runs"), "--percent", "100", "10"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for _ in range(2):
        subprocess.run([*script, *command], env=environment, check=True, timeout=300, capture_output=True)
        assert len(cells.read_text().splitlines()) == 2
    table = subprocess.run(
        [*script, "table", str(cells)], env=environment, check=True, timeout=60, capture_output=True, text=True
    ).stdout
    assert "| sketchpose | 100 % | 1 |" in table
    assert "| sketchpose | 10 % | 1 |" in table


def test_the_table_of_interior_strokes_is_made_of_finished_rows(tmp_path: Path, shared_data: Path) -> None:
    script = [sys.executable, str(ROOT / "benchmarks" / "interior.py"), "--data", str(shared_data / "dsb2018_fluo")]
    rows = tmp_path / "rows.jsonl"
    command = [*script, "--steps", "2", "--seeds", "0", "--others", "1", "--threads", "1", "--rows", str(rows)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for names in (("outlines", "interior"), ("outlines", "points")):
        table = subprocess.run(
            [*command, "--names", *names], env=environment, check=True, timeout=300, capture_output=True, text=True
        ).stdout
    assert len(rows.read_text().splitlines()) == 3
    assert "| points | 1 | 2 |" in table
    assert "interior: " in table


def test_the_table_of_loss_terms_is_made_of_finished_cells(tmp_path: Path, shared_data: Path) -> None:
    """The gradients of two steps, then two cells on a few images and their table."""
    script = [sys.executable, str(ROOT / "benchmarks" / "loss_terms.py")]
    cells = tmp_path / "cells.jsonl"
    common = ["--data", str(shared_data), "--steps", "2", "--weights", "default", "euler=0.1,norm=0"]
    made = ["train", *common, "--tiny", "--out", str(cells), "--runs", str(tmp_path / "runs")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = [
        subprocess.run(
            [*script, *command], env=environment, check=True, timeout=300, capture_output=True, text=True
        ).stdout
        for command in (["norms", *common, "--every", "1"], made, made, ["table", str(cells)])
    ]
    assert "| steps | flow | distance | bounds | boundary | euler | sum | clipped at 5 |" in said[0]
    assert len(cells.read_text().splitlines()) == 2
    assert "| sketchpose-1 | 10 % | euler=0.1,norm=0 | 1 | 2 |" in said[3]


def test_the_synthesis_table_is_made_of_finished_cells(tmp_path: Path, shared_data: Path) -> None:
    """One step of a synthesis, two rows of two steps on a few images, then the table."""
    script = [sys.executable, str(ROOT / "benchmarks" / "synthesis.py")]
    cells = tmp_path / "cells.jsonl"
    common = ["--data", str(shared_data), "--runs", str(tmp_path / "runs"), "--threads", "1"]
    rows = ["--tiny", "--out", str(cells), "--steps", "2", "--rows", "dots", "points + strokes"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for noise in ([], ["--local-noise", "1"]):
        made = ["paint", *common, "--steps", "1", *noise]
        subprocess.run([*script, *made], env=environment, check=True, timeout=300, capture_output=True)
    score, logits = (
        subprocess.run(
            [*script, *command], env=environment, check=True, timeout=300, capture_output=True, text=True
        ).stdout
        for command in (["score", *common, "--local-noise", "1"], ["logits", *common, "--steps", "20"])
    )
    assert score.startswith("| 1 | 1 |")
    assert logits.startswith("| 1 to 20 | -")
    subprocess.run([*script, "train", *common, *rows], env=environment, check=True, timeout=300, capture_output=True)
    table = subprocess.run(
        [*script, "table", str(cells)], env=environment, check=True, timeout=60, capture_output=True, text=True
    ).stdout
    assert all(f"| {row} | 1 |" in table for row in ("dots", "points + strokes"))
