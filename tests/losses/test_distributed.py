"""Two processes that average their gradients do what one process does with the joined batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing

from sketchscale.losses import LOSSES, BatchTargets, loss_config
from tests.losses.batches import batch, full_mask, random_prediction

RANKS = 2


def shares() -> list[BatchTargets]:
    """Few strokes on one rank, much on the other; background on the first only in a corner, no boundary on it."""
    little = np.full((12, 12), -1, np.int32)
    little[:2, :2], little[8, 4:7] = 0, 1
    return [batch(little, little), batch(full_mask(1, (12, 12)), full_mask(2, (12, 12)))]


def gradient(name: str, targets: BatchTargets, prediction: torch.Tensor) -> torch.Tensor:
    prediction = prediction.clone().requires_grad_()
    (found,) = torch.autograd.grad(LOSSES[name](prediction, targets, loss_config(name)), prediction)
    return found


def joined() -> BatchTargets:
    parts = shares()
    return BatchTargets(**{k: torch.cat([getattr(p, k) for p in parts]) for k in BatchTargets.__slots__})


def work(rank: int, folder: str) -> None:
    """One rank: the gradients of its share, one file for all losses."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    found = {}
    for name, loss in LOSSES.items():
        everything = random_prediction(7, joined(), loss.outputs)
        found[name] = gradient(name, shares()[rank], everything[2 * rank : 2 * rank + 2])
    torch.save(found, f"{folder}/rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, torch.Tensor]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(work, args=(str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_the_mean_of_the_gradients_of_ranks_is_that_of_the_joined_batch(
    name: str, found: list[dict[str, torch.Tensor]]
) -> None:
    """A network's gradient is linear in that of its predictions, so these are compared; a rank has its own share."""
    everything = random_prediction(7, joined(), LOSSES[name].outputs)
    alone = gradient(name, joined(), everything)
    together = torch.cat([ranks[name] for ranks in found]) / RANKS
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-7)


def test_control_each_rank_normalised_by_itself_would_differ() -> None:
    everything = random_prediction(7, joined(), 3)
    alone = gradient("sketchpose", joined(), everything)
    apart = torch.cat([gradient("sketchpose", part, everything[2 * r : 2 * r + 2]) for r, part in enumerate(shares())])
    assert (apart / RANKS - alone).abs().max() > 1e-2
