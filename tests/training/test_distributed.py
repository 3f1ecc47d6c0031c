"""Several processes learn what one would: the same patches, the same gradient, the same weights everywhere."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sketchscale.errors import InputError
from sketchscale.training.distributed import World, is_first_process
from tests.training.two_processes import SHARED, gradient

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_shares_make_up_the_batch(size: int) -> None:
    shares = [World(rank=r, size=size).share(7) for r in range(size)]
    assert [k for share in shares for k in share] == list(range(7))
    with pytest.raises(InputError, match=r"--batch 8"):
        World(rank=0, size=8).share(7)


def test_the_first_process_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert is_first_process()
    monkeypatch.setenv("RANK", "1")
    assert not is_first_process()


def run_two(folder: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.training.two_processes", str(folder)]
    running = [
        subprocess.Popen(
            command,
            env={**os.environ, **meeting, "RANK": str(r), "LOCAL_RANK": str(r)},
            cwd=ROOT,
            stderr=subprocess.PIPE,
        )
        for r in range(2)
    ]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()


def test_two_processes_agree_with_each_other_and_with_one(tmp_path: Path) -> None:
    """Weights and running statistics are the same on both, to the bit. Against one process only the gradient can be
    compared, with running statistics in batch norm: batch statistics of half a batch are not those of the whole."""
    run_two(tmp_path)
    weights = [torch.load(tmp_path / f"weights_{r}.pt", weights_only=True) for r in range(2)]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["log.jsonl", "state.safetensors"]
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == SHARED.steps
    alone = gradient(SHARED, World())
    for rank in range(2):
        together = torch.load(tmp_path / f"gradient_{rank}.pt", weights_only=True)
        assert together.keys() == alone.keys()
        for name in alone:
            torch.testing.assert_close(together[name], alone[name], rtol=1e-3, atol=1e-5)
