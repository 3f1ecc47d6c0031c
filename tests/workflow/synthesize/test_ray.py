"""`synthesize train` by the command line on two processes, started by Ray Train or torchrun, killed or not: one
synthesis.

As in tests/training/test_ray_train.py, each command has a cluster of its own on loopback, and a deadline.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from sketchscale.synthesis.model import load_synthesis
from tests.training.test_ray_train import ended, kill_a_worker, launch, torchrun, wait_for_steps
from tests.workflow.synthesize.test_train import image_and_points
from tests.workflow.synthesize.test_travel import weights

pytestmark = pytest.mark.slow

pytest.importorskip("ray")

STEPS = 8
RAY = ["-m", "sketchscale", "synthesize", "train", "--engine", "ray", "--workers", "2"]


def start(command: list[str], folder: Path, pair: tuple[str, str], *more: str) -> subprocess.Popen[str]:
    what = [pair[0], "--points", pair[1], "--diameter", "12", "--out", str(folder), "--steps", str(STEPS)]
    options = ["--batch", "3", "--crop", "64", "--width", "1", "--threads", "1", "--save-every", "0"]
    options += ["--precision", "float32"]
    return launch([*command, *what, *options, "--sheet-every", "4", "--json", *more], folder.parent)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return image_and_points(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, pair: tuple[str, str]) -> dict[str, torch.Tensor]:
    """Weights of a training by torchrun that nothing happened to."""
    out = tmp_path_factory.mktemp("undisturbed") / "synthesis"
    by_torchrun = [*torchrun()[:-1], "synthesize", "train"]
    code, _, said = ended(start(by_torchrun, out, pair), time.monotonic())
    assert code == 0, said
    return weights(load_synthesis(str(out)))


def check_same(out: Path, expected: dict[str, torch.Tensor]) -> None:
    made = load_synthesis(str(out))
    assert made.provenance["processes"] == 2
    assert made.provenance["steps"] == STEPS
    assert made.provenance["options"]["batch"] == 3
    found = weights(made)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    log = (out / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == list(range(1, STEPS + 1))
    assert {p.name for p in (out / "run").iterdir()} == {
        "log.jsonl", "loss.png", "sheet_000004.png", "sheet_000008.png", "state.safetensors"
    }  # fmt: skip


def test_a_killed_worker_changes_nothing_nor_do_points_that_went_away(
    tmp_path: Path, pair: tuple[str, str], undisturbed: dict[str, torch.Tensor]
) -> None:
    began, out = time.monotonic(), tmp_path / "synthesis"
    points = str(shutil.copy(pair[1], tmp_path / "points.csv"))
    process = start(RAY, out, (pair[0], points))
    wait_for_steps(process, out / "run" / "log.jsonl", 2)
    Path(points).unlink()
    kill_a_worker(process, out / "run" / "log.jsonl", after=3)
    code, answer, said = ended(process, began)
    assert code == 0, said
    assert json.loads(answer)["steps"] == STEPS
    assert "a worker died" in said
    check_same(out, undisturbed)


@pytest.mark.nightly
def test_ctrl_c_at_the_driver_saves_the_state_resume_goes_on_and_a_stop_file_ends_it(
    tmp_path: Path, pair: tuple[str, str]
) -> None:
    began, out = time.monotonic(), tmp_path / "synthesis"
    process = start(RAY, out, pair, "--steps", "3000", "--save-every", "1000")
    wait_for_steps(process, out / "run" / "log.jsonl", 2)
    process.send_signal(signal.SIGINT)
    code, _, said = ended(process, began)
    assert code == 130, said
    assert "--resume" in said.splitlines()[-1]
    assert not (out / "synthesis.safetensors").exists()
    assert not (out / "run" / "driver").exists()
    before = (out / "run" / "log.jsonl").read_text().splitlines()

    began = time.monotonic()
    process = start(RAY, out, pair, "--steps", "3000", "--resume")
    wait_for_steps(process, out / "run" / "log.jsonl", len(before) + 2)
    (out / "run" / "stop").touch()
    code, answer, said = ended(process, began)
    assert code == 0, said
    log = (out / "run" / "log.jsonl").read_text().splitlines()
    assert log[: len(before)] == before
    assert json.loads(answer)["steps"] == len(log) < 3000
    assert [json.loads(line)["step"] for line in log] == list(range(1, len(log) + 1))
    assert load_synthesis(str(out)).provenance["ended_by"] == "stop file"
    assert not (out / "run" / "stop").exists()
