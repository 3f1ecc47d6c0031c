"""Heat maps: equal to plain differentiation, of a patch alone, and only where there is something to look at."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sketchscale.errors import InputError
from sketchscale.objects.attention import grad_cam
from sketchscale.objects.classifiers import (
    Classifier,
    ClassifierConfig,
    NetworkOptions,
    TrainingOptions,
    train_classifier,
)
from sketchscale.objects.classifiers.base import create_network
from sketchscale.objects.classifiers.preparation import PatchOptions
from tests.oracles.attention import slow_grad_cam

RANGES = ((0.0, 1.0), (0.0, 1.0))


def untrained(kind: str = "light", side: int = 16, **more: object) -> Classifier:
    """A network with random weights, and normalisation layers that have seen something."""
    torch.manual_seed(3)
    config = ClassifierConfig(
        kind=kind,
        channels=("a", "b"),
        classes=("x", "y", "z"),
        side=side,
        ranges=RANGES,
        network=NetworkOptions(width=4 if kind == "light" else None),
        **more,  # type: ignore[arg-type]
    )
    network = create_network(config)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.weight.data.normal_(0, 1)
    return Classifier(config=config, weights={k: v.numpy().copy() for k, v in network.state_dict().items()})


def patches_of(n: int, side: int = 16) -> np.ndarray:
    patches = np.random.default_rng(0).random((n, 3, side, side)).astype(np.float32)
    patches[:, -1] = patches[:, -1] > 0.5
    return patches


@pytest.mark.parametrize("more", [{}, {"patches": PatchOptions(normalization="min-max", mask=False, context=2)}])
def test_heat_is_that_of_plain_differentiation(more: dict[str, object]) -> None:
    classifier, patches = untrained(**more), patches_of(5)
    classes = np.array([0, 1, 2, 0, 1])
    found = grad_cam(classifier, patches, classes)
    expected = np.stack([slow_grad_cam(classifier, p, int(c)) for p, c in zip(patches, classes, strict=True)])
    assert expected.max() == 1
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_heat_depends_on_its_patch_alone() -> None:
    classifier, patches = untrained(), patches_of(40)
    classes = np.arange(40) % 3
    together = grad_cam(classifier, patches, classes)
    np.testing.assert_array_equal(together[7:8], grad_cam(classifier, patches[7:8], classes[7:8]))
    assert together.shape == (40, 16, 16)
    assert together.min() >= 0
    assert together.max() <= 1


def test_heat_lies_where_the_difference_between_the_classes_is() -> None:
    """Half of the patches have a bright square in one corner; turned and flipped in training, so in any corner."""
    rng = np.random.default_rng(1)
    patches = rng.normal(0.3, 0.05, (60, 2, 24, 24)).astype(np.float32)
    patches[:, -1] = 1
    patches[::2, 0, 2:8, 2:8] += 0.7
    names = ["with", "without"] * 30
    classifier = train_classifier(
        patches, None, names, channels=("a",), ranges=((0, 1),), options=TrainingOptions(steps=40, held_out=0)
    )
    heat = grad_cam(classifier, patches[:20:2], np.zeros(10, np.int64))
    assert heat[:, :12, :12].mean() > 3 * heat[:, 12:, 12:].mean()


def test_a_residual_network_has_maps_and_a_forest_has_none() -> None:
    maps = grad_cam(untrained("resnet18", side=32), patches_of(2, 32), np.array([0, 1]))
    assert maps.shape == (2, 32, 32)
    rows = np.array([[0.0], [1.0]] * 10)
    forest = train_classifier(
        None, rows, ["a", "b"] * 10, kind="random-forest", channels=("g",), ranges=(), features=("area",)
    )
    with pytest.raises(InputError, match="leave out --attention"):
        grad_cam(forest, patches_of(1), np.array([0]))
