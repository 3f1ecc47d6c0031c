"""Networks on patches: published sizes, the order of their layers, probabilities that depend on one patch alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.errors import InputError, UnknownNameError
from sketchscale.objects.classifiers import CLASSIFIERS, LightNet, NetworkOptions
from sketchscale.objects.classifiers.base import one_thread
from sketchscale.objects.classifiers.light import smallest_side
from sketchscale.objects.classifiers.resnet import ResNet18
from tests.objects.classifiers.drawn import untrained
from tests.oracles.classifiers import light_probabilities


def size(network):
    return sum(p.numel() for p in network.parameters())


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(2, 20))
def test_the_default_network_has_the_published_size(channels, classes):
    assert size(LightNet(channels, classes)) == 144 * channels + 17 * classes + 2400


@pytest.mark.parametrize(
    ("channels", "classes", "options", "count"),
    [
        (4, 3, {}, 3027),
        (4, 2, {"depth": 3, "kernel": 5}, 14578),
        (4, 2, {"depth": 4, "kernel": 5}, 21026),
        (2, 2, {"dim": 3, "width": 2}, 1614),
        (2, 2, {"dim": 3, "width": 4}, 3658),
        (2, 2, {"dim": 3, "width": 8}, 9042),
        (2, 2, {"dim": 3, "width": 16}, 24994),
        (2, 2, {"dim": 3, "width": 32}, 77634),
        (2, 2, {"dim": 3, "width": 64}, 265858),
    ],
)
def test_networks_have_the_sizes_of_svetlanas(channels, classes, options, count):
    assert size(LightNet(channels, classes, **options)) == count


def test_the_residual_network_has_the_published_size():
    assert size(ResNet18(3, 1000)) == 11689512
    assert size(ResNet18(3, 10, stem="small")) == 11173962


def test_shortcuts_are_strided_convolutions_without_a_stride_and_keep_torchvisions_names():
    """Torch's own 1 x 1 convolution with a stride writes beyond its memory, see resnet.py."""
    network = ResNet18(2, 2, width=4).eval()
    assert not [m for m in network.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (1, 1) != m.stride]
    for side in (5, 8):
        x, block = torch.randn(3, 4, side, side), network.layer2[0]
        shortcut = block.downsample[1](
            torch.nn.functional.conv2d(x, network.state_dict()["layer2.0.downsample.0.weight"], stride=2)
        )
        straight = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))
        torch.testing.assert_close(block(x), torch.relu(straight + shortcut))


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 3), st.sampled_from([3, 5]), st.integers(0, 8), st.integers(0, 2**16))
def test_a_light_network_is_convolution_relu_norm_pooling_in_this_order(depth, kernel, more, seed):
    side = max(4, smallest_side(depth, kernel)) + more
    classifier = untrained(1, side=side, seed=seed, network={"depth": depth, "kernel": kernel, "width": 3})
    patch = np.random.default_rng(seed).normal(size=(1, 2, side, side)).astype(np.float32)
    expected = light_probabilities(patch[0], classifier.weights, depth)
    np.testing.assert_allclose(classifier.predict([patch])[0], expected, atol=1e-5)


@pytest.mark.parametrize(("depth", "kernel", "dim"), [(2, 3, 2), (2, 5, 2), (4, 5, 2), (2, 3, 3), (3, 3, 3), (4, 3, 3)])
def test_the_smallest_patch_passes_and_a_smaller_one_does_not(depth, kernel, dim):
    network = LightNet(1, 2, depth=depth, kernel=kernel, dim=dim, width=1).eval()
    side = smallest_side(depth, kernel, dim)
    assert network(torch.zeros(1, 1, *(side,) * dim)).isfinite().all()
    if side > 1:
        with pytest.raises(RuntimeError):
            network(torch.zeros(1, 1, *(side - 1,) * dim))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("light", {}),
        ("light", {"dim": 3, "side": 9, "network": {"width": 4}}),
        ("light", {"network": {"depth": 3, "width": 8}}),
        ("resnet18", {"network": {"width": 4}}),
        ("resnet18", {"network": {"width": 4, "stem": "small"}}),
        ("light", {"patches": {"normalization": "min-max", "mask": False, "context": 2}}),
    ],
)
def test_a_probability_depends_on_its_patch_alone(kind, options):
    classifier = untrained(2, kind=kind, **{"side": 16, **options})
    n = classifier.batch_shape()[0] + 7
    patches = np.random.default_rng(0).normal(size=(n, *classifier.batch_shape()[1:])).astype(np.float32)
    together = classifier.predict([patches])
    alone = classifier.predict(patches[i : i + 1] for i in range(0, n, 23))
    np.testing.assert_array_equal(alone, together[::23])
    np.testing.assert_array_equal(
        classifier.predict([patches[:5], patches[5:]])[::-1], classifier.predict([patches[::-1]])
    )
    np.testing.assert_allclose(together.sum(axis=1), 1, rtol=1e-5)
    assert classifier.batch_bytes() > 0


def test_no_patches_give_no_probabilities():
    assert untrained().predict([]).shape == (0, 3)


@pytest.mark.parametrize("options", [{"depth": 1}, {"depth": 5}, {"kernel": 4}, {"width": 0}, {"stem": "tiny"}])
def test_sizes_outside_their_range_are_refused_in_one_line(options):
    with pytest.raises(InputError) as caught:
        NetworkOptions(**options)
    assert "\n" not in str(caught.value)


def test_unknown_kinds_and_patches_that_are_too_small_are_refused():
    with pytest.raises(UnknownNameError, match="unknown classifier 'forest'; did you mean 'random-forest'"):
        untrained(kind="forest")
    with pytest.raises(InputError, match="patches of 8 px for depth 4 and kernel 5; expected: 46 px or more"):
        untrained(side=8, network={"depth": 4, "kernel": 5})
    with pytest.raises(InputError, match="volumes for resnet18"):
        untrained(kind="resnet18", dim=3)


def test_every_kind_says_what_it_needs():
    needs = {name: (kind.network is not None, kind.forest is not None) for name, kind in CLASSIFIERS.items()}
    assert needs == {
        "light": (True, False),
        "resnet18": (True, False),
        "random-forest": (False, True),
        "gradient-boosting": (False, True),
        "ensemble": (True, True),
    }


def in_new_thread(work):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def test_tasks_that_overlap_leave_the_number_of_threads_as_it_was():
    before, entered, left = torch.get_num_threads(), threading.Event(), threading.Event()
    torch.set_num_threads(3)

    def second():
        with one_thread():
            entered.set()
            left.wait()

    def first():
        with one_thread():
            pool.submit(second)
            entered.wait()

    try:
        with ThreadPoolExecutor(2) as pool:
            pool.submit(first).result()
            assert in_new_thread(torch.get_num_threads) == 1  # the second is still inside
            left.set()
        assert in_new_thread(torch.get_num_threads) == 3
    finally:
        torch.set_num_threads(before)
