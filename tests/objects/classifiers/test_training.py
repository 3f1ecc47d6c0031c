"""What classifiers learn, how honestly they are scored, and what they refuse."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from sketchscale.errors import InputError, SetupError, UnknownNameError
from sketchscale.objects.classifiers import AugmentOptions, ForestOptions, NetworkOptions, PatchOptions, TrainingOptions
from sketchscale.objects.classifiers.losses import CLASS_LOSSES, class_loss
from sketchscale.objects.classifiers.options import SCHEDULES
from sketchscale.objects.classifiers.scores import class_scores
from sketchscale.objects.classifiers.training import _held_out_parts, train_classifier
from tests.objects.classifiers.drawn import FEATURES, discs, table_rows

QUICK = TrainingOptions(steps=3, held_out=0, network=NetworkOptions(width=4), forest=ForestOptions(trees=5, rounds=5))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def learned(patches, names, options=QUICK, **more):
    """A classifier of one grey channel and three columns."""
    rows = more.pop("rows", None if patches is None else table_rows(patches))
    settings = {"channels": ("grey",), "ranges": ((0.0, 1.0),), "features": FEATURES, "options": options, **more}
    return train_classifier(patches, rows, names, **settings)


def accuracy(classifier, n=300, seed=1):
    patches, names = discs(n, seed)
    found = classifier.predict([patches], table_rows(patches)).argmax(axis=1)
    return np.mean([classifier.config.classes[i] == name for i, name in zip(found, names, strict=True)])


@pytest.mark.parametrize(("kind", "least"), [("light", 0.95), ("random-forest", 0.8), ("ensemble", 0.95)])
def test_textures_are_told_apart_from_100_examples(kind, least):
    patches, names = discs(100, 0)
    classifier = learned(patches, names, TrainingOptions(), kind=kind, provenance={"image": "discs"})
    assert accuracy(classifier) >= least
    score = classifier.provenance["held_out"]
    assert (score["n"], np.sum(score["confusion"])) == (20, 20)
    assert score["accuracy"] >= 0.7
    assert set(score["recall"]) == set(score["precision"]) == {"coarse", "fine"}
    assert classifier.config.classes == ("coarse", "fine")
    assert classifier.provenance["image"] == "discs"


@pytest.mark.parametrize("kind", ["light", "resnet18", "random-forest", "gradient-boosting", "ensemble"])
def test_training_is_seeded(kind):
    patches, names = discs(20, 2)
    one, two = (learned(patches, names, kind=kind) for _ in range(2))
    assert one.sha256 == two.sha256
    other = learned(patches, names, dataclasses.replace(QUICK, seed=1), kind=kind)
    assert other.sha256 != one.sha256 or kind == "gradient-boosting"
    assert one.config.side == (24 if one.needs_patches else 0)
    assert one.config.features == (FEATURES if one.needs_table else ())


def test_an_ensemble_is_the_mean_of_its_members():
    patches, names = discs(30, 2)
    rows, parts = table_rows(patches), {}
    for kind in ("light", "random-forest", "ensemble"):
        parts[kind] = learned(patches, names, dataclasses.replace(QUICK, network_share=0.25), kind=kind)
    light, forest, both = (classifier.predict([patches], rows) for classifier in parts.values())
    np.testing.assert_allclose(both, 0.25 * light + 0.75 * forest, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "mse"},
        {"loss": "l1"},
        {"loss": "smooth-l1"},
        {"loss": "binary-cross-entropy"},
        {"schedule": "step"},
        {"schedule": "constant"},
        {"weight_decay": 0.1},
        {"epochs": 2},
        {"class_weights": "none"},
        {"class_weights": {"fine": 5.0, "coarse": 1.0}},
        {"augment": AugmentOptions(noise=0.1)},
        {"patches": PatchOptions(mask=False)},
        {"patches": PatchOptions(normalization="max", context=2)},
    ],
)
def test_every_option_changes_what_is_learned(change):
    patches, names = discs(21, 2)
    plain, changed = (learned(patches, names, dataclasses.replace(QUICK, **each)) for each in ({}, change))
    assert changed.sha256 != plain.sha256
    assert np.isfinite(changed.predict([patches])).all()


def test_a_class_of_more_weight_is_found_more_often_where_patches_say_nothing():
    patches, _ = discs(40, 3)
    names = np.random.default_rng(0).permutation(["coarse", "fine"] * 20).tolist()  # of no texture in particular
    for heavy, light in (("coarse", "fine"), ("fine", "coarse")):
        options = dataclasses.replace(QUICK, steps=30, class_weights={heavy: 20.0, light: 1.0})
        classifier = learned(patches, names, options)
        found = classifier.predict([patches], table_rows(patches)).argmax(axis=1)
        assert (found == classifier.config.classes.index(heavy)).mean() > 0.8


def test_volumes_are_learned():
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(12, 2, 9, 9, 9)).astype(np.float32)
    names = ["bright" if i % 2 else "dark" for i in range(12)]
    patches[1::2, 0] += 2
    options = TrainingOptions(steps=20, held_out=0, network=NetworkOptions(width=2))
    classifier = learned(patches, names, options, rows=None)
    assert (classifier.config.dim, classifier.config.side) == (3, 9)
    found = classifier.predict([patches]).argmax(axis=1)
    np.testing.assert_array_equal(found, np.arange(12) % 2 == 0)


@pytest.mark.parametrize("name", sorted(CLASS_LOSSES))
def test_a_loss_is_least_for_the_truth_and_counts_classes_by_weight(name):
    targets, weights = torch.tensor([0, 0, 1]), torch.tensor([1.0, 4.0])
    sure = torch.tensor([[9.0, -9.0], [9.0, -9.0], [-9.0, 9.0]])
    assert class_loss(name, sure, targets, weights) < 1e-3 < class_loss(name, -sure, targets, weights)
    half = sure * torch.tensor([[1.0], [1.0], [-1.0]])
    wrong = class_loss(name, -sure, targets, torch.ones(2))
    torch.testing.assert_close(class_loss(name, half, targets, weights), wrong * 4 / 6, rtol=1e-3, atol=1e-3)


def test_the_default_loss_is_torchs():
    logits, targets = torch.randn(7, 3), torch.tensor([0, 1, 2, 0, 1, 2, 2])
    weights = torch.tensor([1.0, 2.0, 0.5])
    expected = torch.nn.functional.cross_entropy(logits, targets, weight=weights)
    torch.testing.assert_close(class_loss("cross-entropy", logits, targets, weights), expected)


@pytest.mark.parametrize(("each", "parts"), [(2, 0), (3, 3), (7, 3), (20, 3), (60, 1)])
def test_few_objects_are_judged_in_more_parts_and_each_but_once(each, parts):
    found = _held_out_parts(np.repeat([0, 1], each), dataclasses.replace(QUICK, held_out=0.2))
    assert len(found) == parts
    share = round(each * 0.2)
    for part in found:
        assert part.reshape(2, each).sum(axis=1).tolist() == [share, share]
    assert np.sum(found, axis=0).max(initial=0) <= 1


def test_the_score_is_of_the_held_out_objects_and_none_where_there_are_too_few():
    patches, _ = discs(14, 0)
    names = ["fine", "coarse"] * 7
    score = learned(patches, names, dataclasses.replace(QUICK, held_out=0.2)).provenance["held_out"]
    assert np.sum(score["confusion"], axis=1).tolist() == [3, 3]
    assert learned(patches[:4], names[:4], dataclasses.replace(QUICK, held_out=0.2)).provenance["held_out"] is None


def test_scores_count_what_was_found_and_missed():
    probabilities = np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.6, 0.4, 0], [0.3, 0.7, 0]])
    score = class_scores(probabilities, np.array([0, 0, 0, 1]), ("a", "b", "c"))
    assert score["confusion"] == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert (score["accuracy"], score["balanced_accuracy"]) == (0.75, pytest.approx((2 / 3 + 1) / 2))
    assert score["recall"] == {"a": pytest.approx(2 / 3), "b": 1.0, "c": None}
    assert score["precision"] == {"a": 1.0, "b": 0.5, "c": None}
    assert score["log_loss"] == pytest.approx(-np.mean(np.log([0.9, 0.2, 0.6, 0.7])))


def test_training_goes_on_from_another_classifier():
    patches, names = discs(60, 0)
    first = learned(patches, names, TrainingOptions(steps=120, held_out=0))
    few, few_names = discs(8, 7)
    options = TrainingOptions(steps=1, held_out=0, learning_rate=1e-6)
    again = learned(few, few_names, options, init=first)
    assert accuracy(again) >= 0.9 > accuracy(learned(few, few_names, options))
    assert again.provenance["init"] == first.sha256
    renamed = learned(few, [name.upper() for name in few_names], options, init=first)
    kernels = "cnn_layers.0.weight"
    np.testing.assert_allclose(renamed.weights[kernels], first.weights[kernels], atol=1e-4)
    assert not np.allclose(renamed.weights["fc.0.weight"], first.weights["fc.0.weight"], atol=1e-2)


def test_other_channels_or_kinds_are_no_start():
    patches, names = discs(8, 0)
    first = learned(patches, names)
    with pytest.raises(InputError, match="a light classifier in 2-D of channels grey to start from"):
        learned(patches, names, channels=("red",), init=first)
    with pytest.raises(InputError, match="expected: ensemble"):
        learned(patches, names, kind="ensemble", init=first)


@pytest.mark.parametrize("kind", ["light", "random-forest"])
def test_one_class_cannot_be_learned(kind):
    patches, _ = discs(4, 0)
    with pytest.raises(InputError, match="two classes or more") as caught:
        learned(patches, ["a"] * 4, kind=kind)
    assert "\n" not in str(caught.value)


def test_examples_that_do_not_fit_are_refused():
    patches, names = discs(6, 0)
    with pytest.raises(InputError, match=r"patches of shape \(6, 2, 24, 24\); expected: \(6, 3, side, side\)"):
        learned(patches, names, channels=("a", "b"), ranges=((0, 1),) * 2)
    with pytest.raises(InputError, match="no patches for light"):
        learned(None, names)
    with pytest.raises(InputError, match="no table rows for ensemble"):
        learned(patches, names, kind="ensemble", rows=None)
    with pytest.raises(InputError, match=r"table rows of shape \(6, 2\); expected: \(6, 3\)"):
        learned(patches, names, kind="ensemble", rows=np.zeros((6, 2)))
    with pytest.raises(InputError, match="no table columns for random-forest"):
        learned(patches, names, kind="random-forest", features=())
    with pytest.raises(InputError, match="no weight above 0 for class 'fine'"):
        learned(patches, names, dataclasses.replace(QUICK, class_weights={"coarse": 1.0}))


def test_rows_are_asked_for_where_they_are_needed():
    patches, names = discs(10, 0)
    forest, both = (learned(patches, names, kind=kind) for kind in ("random-forest", "ensemble"))
    with pytest.raises(InputError, match="no table rows; expected: 3 columns, slope, steps"):
        forest.predict([])
    with pytest.raises(InputError, match=r"table rows of shape \(10, 2\)"):
        forest.predict([], np.zeros((10, 2)))
    with pytest.raises(InputError, match="10 patches, 4 rows"):
        both.predict([patches], np.zeros((4, 3)))
    assert forest.predict([], np.zeros((0, 3))).shape == (0, 2)


@pytest.mark.parametrize(
    "change",
    [{"steps": 0}, {"epochs": 0}, {"batch": 1}, {"learning_rate": 0}, {"held_out": 0.9}, {"network_share": 2}],
)
def test_options_outside_their_range_are_refused(change):
    with pytest.raises(InputError, match="expected: "):
        TrainingOptions(**change)


@pytest.mark.parametrize("change", [{"loss": "hinge"}, {"schedule": "warm"}, {"class_weights": "heavy"}])
def test_unknown_names_are_refused_with_the_known_ones(change):
    with pytest.raises(UnknownNameError, match="known: "):
        TrainingOptions(**change)
    assert "cosine" in SCHEDULES


def test_a_device_that_is_not_there_is_refused_before_training():
    with pytest.raises(UnknownNameError, match="unknown device 'abacus'"):
        TrainingOptions(device="abacus")
    with pytest.raises(SetupError, match="expected: a torch build"):
        TrainingOptions(device="cuda" if not torch.cuda.is_available() else "mps")


def test_more_classes_than_a_class_image_holds_are_refused():
    patches, _ = discs(128, 0)
    with pytest.raises(InputError, match="256 classes; expected: at most 255"):
        learned(patches, [f"k{i}" for i in range(256)], kind="random-forest")
