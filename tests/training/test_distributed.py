"""Several processes learn what one would: the same patches, the same gradient, the same weights everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sketchscale.errors import InputError
from sketchscale.training.distributed import World, is_first_process
from tests.training.several_processes import SHARED, learn_in_float64, run_several


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


def test_what_the_first_process_does_is_everyones_and_so_is_its_error() -> None:
    assert World().first_does(lambda: 3) == 3
    with pytest.raises(InputError, match="no sketch"):
        World().first_does(lambda: refuse())


def refuse() -> int:
    raise InputError("no sketch")


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """So many processes, and the folder where they left what they found; see several_processes."""
    folder = tmp_path_factory.mktemp(f"processes_{request.param}")
    run_several(folder, request.param)
    return request.param, folder


def found(together: tuple[int, Path], name: str) -> list[Any]:
    size, folder = together
    return [torch.load(folder / f"{name}_{rank}.pt", weights_only=True) for rank in range(size)]


@pytest.fixture(scope="module")
def alone() -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    return learn_in_float64(SHARED, World())


def test_all_processes_end_with_the_same_weights_and_one_run_folder(together: tuple[int, Path]) -> None:
    first, *others = found(together, "weights")
    assert all(torch.equal(first[k], other[k]) for other in others for k in first)
    run = together[1] / "run"
    assert sorted(p.name for p in run.iterdir()) == ["log.jsonl", "state.safetensors"]
    assert len((run / "log.jsonl").read_text().splitlines()) == SHARED.steps


def test_the_patches_of_a_step_are_those_of_one_process(
    together: tuple[int, Path], alone: tuple[dict[str, torch.Tensor], list[torch.Tensor]]
) -> None:
    """Shares of 5 patches are uneven on purpose."""
    for step, whole in enumerate(alone[1]):
        assert torch.equal(torch.cat([drawn[step] for drawn in found(together, "drawn")]), whole)


def test_several_processes_learn_what_one_does(
    together: tuple[int, Path], alone: tuple[dict[str, torch.Tensor], list[torch.Tensor]]
) -> None:
    """In float64 rounding is all that differs, and eight steps leave less than 1e-7 of it in any weight or running
    statistic, while they move weights by 0.01 and more. Batch norm by each process's share alone misses that by far."""
    for weights in found(together, "exact"):
        for name in (k for k, v in weights.items() if v.is_floating_point()):
            torch.testing.assert_close(weights[name], alone[0][name], rtol=0, atol=1e-7, msg=name)
