"""Benchmarks run at their smallest size, so that they cannot rot; their figures are looked at elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("script", "arguments", "expected"),
    [
        ("plate.py", ["--tiny", "--work", "{folder}"], "verify: "),
        ("objects.py", ["--tiny"], "skimage_features_s"),
        ("integration.py", ["--tiny", "--work", "{folder}"], "suppressed"),
        ("where_next.py", ["--tiny"], "| where-next |"),
        ("integration.py", ["--tiny", "--noise", "--seeds", "1"], "white"),
        ("training_step.py", ["--tiny"], "cpu_ratio"),
        ("volume.py", ["--tiny"], "cut by a block"),
    ],
)
def test_a_benchmark_runs_at_its_smallest_size(
    tmp_path: Path, script: str, arguments: list[str], expected: str
) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / script), *(a.format(folder=tmp_path) for a in arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert expected in result.stdout
