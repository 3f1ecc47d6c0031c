from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.annotations.hover_maps import maps_from_labels
from sketchscale.synthesis.losses import critic_loss, fooling_loss, map_loss, maps_of, point_loss


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_the_point_term_has_gradient_at_the_points_only(seed):
    rng = np.random.default_rng(seed)
    outputs = torch.tensor(rng.normal(0, 3, (2, 3, 7, 9)), requires_grad=True)
    points = torch.from_numpy(rng.random((2, 7, 9)) < 0.2)
    points[0, 0, 0] = True
    point_loss(outputs, points).backward()
    expected = torch.zeros_like(outputs)
    inside = torch.sigmoid(outputs.detach()[:, 2])
    expected[:, 2][points] = ((inside - 1) / points.sum())[points]
    assert torch.allclose(outputs.grad, expected, atol=1e-12)


def test_without_points_the_point_term_is_zero_and_changes_nothing():
    outputs = torch.ones(1, 3, 4, 4, requires_grad=True)
    loss = point_loss(outputs, torch.zeros(1, 4, 4, dtype=torch.bool))
    loss.backward()
    assert loss == 0
    assert (outputs.grad == 0).all()


def test_a_point_surely_taken_for_background_has_the_largest_gradient():
    outputs = torch.full((1, 3, 1, 1), -80.0, requires_grad=True)
    point_loss(outputs, torch.ones(1, 1, 1, dtype=torch.bool)).backward()
    assert outputs.grad[0, 2, 0, 0] == -1


def test_true_maps_cost_next_to_nothing_and_every_term_sees_its_own_error():
    labels = np.zeros((32, 32), int)
    labels[6:20, 8:25] = 1
    maps = torch.from_numpy(maps_from_labels(labels))[None]
    exact = torch.cat([torch.atanh(maps[:, :2].clamp(-1 + 1e-6, 1 - 1e-6)), (maps[:, 2:] * 2 - 1) * 20], 1)
    best = float(map_loss(exact, maps))
    assert best < 1e-3
    assert torch.allclose(maps_of(exact), maps, atol=1e-5)
    for channel in range(3):
        worse = exact.clone()
        worse[:, channel] = -worse[:, channel]
        assert float(map_loss(worse, maps)) > best + 0.05
    steeper = exact.clone()
    steeper[:, 0] += 0.3 * torch.sin(torch.arange(32.0) * 3)  # hardly any square, much slope
    assert float(map_loss(steeper, maps)) > best + 0.02


def test_critics_want_one_for_real_and_zero_for_made():
    assert float(critic_loss(torch.tensor([1.0]), torch.tensor([0.0]))) == 0
    assert float(critic_loss(torch.tensor([0.0]), torch.tensor([1.0]))) == 1
    assert float(fooling_loss(torch.tensor([1.0]))) == 0
