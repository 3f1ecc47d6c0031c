"""What all tests share: where the annotated data is, and one thread per kernel so that results and times are steady."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("SKETCHSCALE_DATA", str(Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of annotated microscopy beside the checkout (or SKETCHSCALE_DATA); skips where there is none."""
    folder = Path(os.environ["SKETCHSCALE_DATA"])
    if not folder.is_dir():
        pytest.skip(f"annotated data is absent: {folder} does not exist (set SKETCHSCALE_DATA)")
    return folder
