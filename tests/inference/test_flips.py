"""Mirrored copies: vectors turn with the image, and the mean is over the whole group."""

from __future__ import annotations

import pytest
import torch

from sketchscale.errors import InputError
from sketchscale.inference.backend import Recipe, mean_over_flips
from sketchscale.networks import NetworkConfig, create_network

BATCH = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def gradient(batch: torch.Tensor) -> torch.Tensor:
    """Central differences and the value: fields that turn exactly as the image does; and a fourth output."""
    padded = torch.nn.functional.pad(batch, (1, 1, 1, 1), mode="replicate")[:, 0]
    dy = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    dx = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    return torch.stack([dy, dx, batch[:, 0], batch[:, 0]], 1)


def turned(fields: torch.Tensor, *, up: bool, left: bool, swap: bool) -> torch.Tensor:
    """Fields of a tile that was transposed, then mirrored."""
    if swap:
        fields = fields[:, [1, 0, 2]].transpose(2, 3)
    sign = torch.tensor([-1.0 if up else 1.0, -1.0 if left else 1.0, 1.0]).reshape(1, 3, 1, 1)
    return fields.flip([axis for axis, yes in ((2, up), (3, left)) if yes]) * sign


@pytest.mark.parametrize("flips", [1, 4, 8])
def test_fields_that_turn_with_the_image_are_their_own_mean(flips: int) -> None:
    torch.testing.assert_close(mean_over_flips(gradient, BATCH, flips), gradient(BATCH)[:, :3])


@pytest.mark.parametrize(("flips", "swap"), [(4, False), (8, True)])
@pytest.mark.parametrize(("up", "left"), [(True, False), (False, True), (True, True)])
def test_a_mirrored_tile_gives_mirrored_fields(flips: int, swap: bool, up: bool, left: bool) -> None:
    network = create_network(NetworkConfig(widths=(4, 8)), seed=1).eval()
    seen = BATCH.transpose(2, 3) if swap else BATCH
    seen = seen.flip([axis for axis, yes in ((2, up), (3, left)) if yes])
    with torch.inference_mode():
        plain, mirrored = (mean_over_flips(network, batch, flips) for batch in (BATCH, seen))
        alone = [mean_over_flips(network, batch, 1) for batch in (BATCH, seen)]
    torch.testing.assert_close(mirrored, turned(plain, up=up, left=left, swap=swap), atol=1e-5, rtol=1e-4)
    # the control: one look at the tile does not
    assert not torch.allclose(alone[1], turned(alone[0], up=up, left=left, swap=swap), atol=1e-3)


@pytest.mark.parametrize("flips", [4, 8])
def test_a_volume_is_mirrored_within_its_sections(flips: int) -> None:
    volume = torch.randn(1, 1, 4, 16, 16, generator=torch.Generator().manual_seed(1))

    def sections(batch: torch.Tensor) -> torch.Tensor:
        """The gradient of every section, and a flow along z that no mirror changes."""
        fields = torch.stack([gradient(batch[:, :, z])[:, :3] for z in range(batch.shape[2])], 2)
        return torch.cat([batch, fields], 1)

    torch.testing.assert_close(mean_over_flips(sections, volume, flips), sections(volume))


def test_other_numbers_of_flips_are_refused() -> None:
    with pytest.raises(InputError, match="1, 4 or 8"):
        Recipe(flips=2)
