"""Files of SVETLANA, made here as it makes them: whole networks in a pickle, which must not run."""

from __future__ import annotations

import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from sketchscale.cli import run
from sketchscale.errors import InputError, MissingDataError
from sketchscale.objects.annotation.mark_files import read_marks
from sketchscale.objects.classifiers import load_classifier
from sketchscale.objects.classifiers.pickles import Record, read_pickle
from sketchscale.objects.classifiers.resnet import ResNet18
from sketchscale.objects.classifiers.svetlana import svetlana_classifier, svetlana_marks


class CNN2D(nn.Module):
    """A network of theirs: the softmax is its last layer."""

    def __init__(self, channels, classes, depth=2, kernel=3):
        super().__init__()
        layers = []
        for i in range(depth):
            layers += [nn.Conv2d(16 if i else channels, 16, kernel, padding=1), nn.ReLU(inplace=True)]
            layers += [nn.BatchNorm2d(16), nn.MaxPool2d(2)]
        self.cnn_layers = nn.Sequential(*layers)
        self.avg_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1))
        self.fc = nn.Sequential(nn.Linear(16, classes))
        self.softmax = nn.Softmax(dim=1)

    def forward(self, x):
        return self.softmax(self.fc(self.avg_pool(self.cnn_layers(x)).flatten(1)))


class CNN3D(nn.Module):
    def __init__(self, channels, classes, width):
        super().__init__()
        self.conv1 = nn.Conv3d(channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.maxpool = nn.MaxPool3d(2, stride=2, padding=1)
        self.cnn_layers = nn.Sequential(
            nn.Conv3d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.BatchNorm3d(2 * width), nn.MaxPool3d(2)
        )
        self.fc = nn.Sequential(nn.Linear(2 * width, classes))

    def forward(self, x):
        x = self.cnn_layers(self.maxpool(self.bn1(torch.relu(self.conv1(x)))))
        return torch.softmax(self.fc(x.mean(dim=(2, 3, 4))), dim=1)


def lived(network, seed=0):
    """With statistics as after training."""
    torch.manual_seed(seed)
    for name, values in network.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            values.uniform_(0.5, 1.5)
    return network.eval()


def saved(path, network, **more):
    """A training file: network, optimiser and loss, all of them objects."""
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    settings = {"patch_size": 17, "norm_type": "min max normalization", "image_path": "/a/b.tif", **more}
    settings = {key: value for key, value in settings.items() if value is not None}
    torch.save({"model": network, "optimizer_state_dict": optimiser, "loss": nn.CrossEntropyLoss(), **settings}, path)
    return str(path)


def classifier_of(path, **options):
    return svetlana_classifier(path, read_pickle(path), **options)


def min_max(patches):
    """Images of theirs: all channels together to 0 ... 1, then the mask."""
    seen = patches.copy()
    for patch in seen:
        patch[:-1] = (patch[:-1] - patch[:-1].min()) / np.ptp(patch[:-1])
    return torch.from_numpy(seen)


def drawn(shape, seed=0):
    rng = np.random.default_rng(seed)
    patches = rng.uniform(0, 200, shape).astype(np.float32)
    patches[:, -1] = rng.random(patches[:, -1].shape) < 0.3
    return patches


@pytest.mark.parametrize(("depth", "kernel", "size"), [(2, 3, 16), (3, 5, 32), (4, 5, 50)])
def test_a_network_gives_the_probabilities_it_gave_there(tmp_path, depth, kernel, size):
    network = lived(CNN2D(4, 3, depth, kernel))
    path = saved(tmp_path / "n.pth", network, patch_size=size)
    classifier = classifier_of(path, channels=("r", "g", "b"))
    assert (classifier.config.side, classifier.config.classes) == (size, ("class_1", "class_2", "class_3"))
    assert (classifier.config.patches.normalization, classifier.plane_ranges) == ("min-max", False)
    patches = drawn((5, 4, size, size))
    with torch.no_grad():
        expected = network(min_max(patches)).numpy()
    np.testing.assert_allclose(classifier.predict([patches]), expected, atol=1e-6)


def test_a_network_for_grey_images_reads_one_channel(tmp_path):
    network = lived(CNN2D(4, 2))
    path = saved(tmp_path / "n.pth", network, norm_type=None)
    classifier = classifier_of(path, channels=("dapi",), classes=("round", "long"))
    patches = drawn((5, 2, 16, 16))
    with torch.no_grad():
        expected = network(min_max(patches[:, [0, 0, 0, 1]])).numpy()
    np.testing.assert_allclose(classifier.predict([patches]), expected, atol=1e-6)
    assert (classifier.config.side, classifier.config.classes) == (16, ("round", "long"))


def test_networks_of_volumes_and_residual_ones_come_in_too(tmp_path):
    solid = lived(CNN3D(2, 2, 4))
    classifier = classifier_of(saved(tmp_path / "v.pth", solid, norm_type="no"), channels=("a",), side=12)
    patches = drawn((3, 2, 12, 12, 12))
    with torch.no_grad():
        np.testing.assert_allclose(classifier.predict([patches]), solid(torch.from_numpy(patches)).numpy(), atol=1e-6)
    residual = lived(ResNet18(4, 2, width=4))
    classifier = classifier_of(saved(tmp_path / "r.pth", residual), channels=("r", "g", "b"), normalization="none")
    patches = drawn((3, 4, 16, 16))
    with torch.no_grad():
        expected = torch.softmax(residual(torch.from_numpy(patches)), 1).numpy()
    np.testing.assert_allclose(classifier.predict([patches]), expected, atol=1e-6)
    assert classifier.config.kind == "resnet18"


def test_the_unused_first_output_of_old_files_is_left_out(tmp_path):
    network = lived(CNN2D(2, 3))
    classifier = classifier_of(saved(tmp_path / "n.pth", network), channels=("a",), classes=("x", "y"))
    patches = drawn((4, 2, 16, 16))
    with torch.no_grad():
        expected = network(min_max(patches)).numpy()[:, 1:]
    np.testing.assert_allclose(classifier.predict([patches]), expected / expected.sum(1, keepdims=True), atol=1e-6)


def test_a_state_dict_alone_will_do(tmp_path):
    network = lived(CNN2D(2, 2))
    torch.save(network.state_dict(), tmp_path / "s.pth")
    assert classifier_of(str(tmp_path / "s.pth"), channels=("a",), side=16).config.side == 16


@pytest.mark.parametrize(
    ("network", "options", "words"),
    [
        (CNN2D(4, 2), {"channels": ("a", "b")}, "a network for 3 channels; expected: 2, as named"),
        (CNN2D(2, 2), {"channels": ("a",), "classes": ("x", "y", "z")}, "a network of 2 classes; expected: 3"),
        (CNN2D(2, 2, 4, 5), {"channels": ("a",)}, "patches of 16 px for depth 4 and kernel 5"),
        (nn.Sequential(nn.Linear(3, 2)), {"channels": ("a",)}, "another network .bias, weight"),
        (CNN3D(2, 2, 300), {"channels": ("a",)}, "width 300"),
    ],
)
def test_networks_that_do_not_fit_are_refused_in_one_line(tmp_path, network, options, words):
    with pytest.raises(InputError, match=words) as caught:
        classifier_of(saved(tmp_path / "n.pth", network), **options)
    assert "\n" not in str(caught.value)


def test_nan_other_shapes_and_no_size_are_refused(tmp_path):
    network = CNN2D(2, 2)
    with pytest.raises(InputError, match="no patch size; expected: the side"):
        classifier_of(saved(tmp_path / "n.pth", network, patch_size=None), channels=("a",))
    network.fc[0].bias.data[0] = float("nan")
    with pytest.raises(InputError, match="NaN or Inf"):
        classifier_of(saved(tmp_path / "n.pth", network), channels=("a",))
    network.fc[0] = nn.Linear(9, 2)
    with pytest.raises(InputError, match=r"1 weights do not fit its own network, first fc\.0\.weight"):
        classifier_of(saved(tmp_path / "n.pth", network), channels=("a",))


class Hostile:
    """Runs a command when it is unpickled the usual way."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_hostile_file_does_not_run(tmp_path):
    proof = tmp_path / "ran"
    torch.save({"model": Hostile(f"touch {proof}"), "patch_size": 16}, tmp_path / "h.pth")
    content = read_pickle(tmp_path / "h.pth")
    assert isinstance(content["model"], Record)
    assert content["model"].origin.endswith("system")
    assert not proof.exists()
    with pytest.raises(InputError, match="no network"):
        svetlana_classifier("h.pth", content, channels=("a",))
    torch.load(tmp_path / "h.pth", weights_only=False)  # the control: it does run elsewhere
    assert proof.exists()


def packed(path, pickled):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickled)


@pytest.mark.parametrize("kind", ["builtins\neval", "builtins\ngetattr", "subprocess\nPopen", "torch\nload"])
def test_no_function_can_be_reached_by_name(tmp_path, kind):
    packed(tmp_path / "h.pth", b"c" + kind.encode() + b"\n(S'1+1'\nS'x'\ntR.")
    assert isinstance(read_pickle(tmp_path / "h.pth"), Record)


def nested():
    part = []
    for _ in range(49):
        part = [part, part]
    return part


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b"junk",
        b"cnumpy.core.multiarray\n_reconstruct\n(NNNtR(I1\n(I9999999999\ntNI00\nS''\ntb.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(NI0\n(I9\nt(I1\ntI00\nNtR.",
        pickle.dumps([[[0]]], 0)[:-3],
        b"\x80\x02]q\x00h\x00a.",
    ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path, pickled):
    packed(tmp_path / "d.pth", pickled)
    with pytest.raises(InputError, match="expected: a file that torch") as caught:
        read_pickle(tmp_path / "d.pth")
    assert "\n" not in str(caught.value)


def test_parts_that_multiply_are_looked_at_once(tmp_path):
    packed(tmp_path / "n.pth", pickle.dumps(nested()))
    assert len(read_pickle(tmp_path / "n.pth")) == 2


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path):
    torch.save(torch.zeros(1).expand(10**6), tmp_path / "t.pth")
    with pytest.raises(InputError, match="a tensor larger than its storage"):
        read_pickle(tmp_path / "t.pth")
    with pytest.raises(MissingDataError, match="expected: a file that torch"):
        read_pickle(tmp_path / "none.pth")


def test_tensors_of_any_layout_come_back(tmp_path):
    tensors = {"a": torch.arange(24).reshape(2, 3, 4), "h": torch.ones(3, dtype=torch.half), "e": torch.zeros(0, 2)}
    tensors |= {"t": tensors["a"].permute(2, 0, 1)[1:], "p": nn.Parameter(torch.ones(2)), "b": torch.tensor([True])}
    torch.save(tensors, tmp_path / "t.pth")
    found = read_pickle(tmp_path / "t.pth")
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor.detach().numpy())


def ring():
    """Pixels of a ring: its centroid is not on it."""
    y, x = np.indices((21, 21)) - 10
    return np.argwhere((np.hypot(y, x) > 7) & (np.hypot(y, x) < 9)) + 100


def labels_file(path, keys, **more):
    coords = [ring(), np.array([[5, 6], [5, 7]]), np.array([[50, 60]])]
    props = [{"centroid": tuple(c.mean(axis=0)), "coords": c, "label": np.int64(i + 4)} for i, c in enumerate(coords)]
    data = {
        "image_path": "Images/cells.tif",
        "labels_path": "Masks/cells.tif",
        "regionprops": props[: len(keys)],
        "labels_list": keys,
        "patch_size": 40,
        **more,
    }
    torch.save(data, path)
    return str(path)


@pytest.mark.parametrize(("keys", "names"), [([1, 2, 1], ["class_1", "class_2"]), ([0, 1, 0], ["class_1", "class_2"])])
def test_annotations_become_points_on_their_objects(tmp_path, keys, names):
    path = labels_file(tmp_path / "labels", keys)
    marks = svetlana_marks(path, read_pickle(path))
    assert [mark.name for mark in marks] == [names[0], names[1], names[0]]
    assert [mark.label for mark in marks] == [4, 5, 6]
    assert {mark.image for mark in marks} == {"cells.tif"}
    assert any((ring() == marks[0].point).all(axis=1))
    assert [mark.point for mark in marks[1:]] == [(5.0, 6.0), (50.0, 60.0)]


def test_annotations_of_several_images_keep_their_image(tmp_path):
    path = tmp_path / "labels"
    prop = {"centroid": (1.0, 2.0, 3.0), "coords": np.array([[1, 2, 3]]), "label": 1}
    torch.save(
        {
            "image_path": ["a\\x.tif", "/b/y.tif"],
            "labels_path": ["m", "n"],
            "regionprops": [[prop], [prop, prop]],
            "labels_list": [[1], [2, 1]],
        },
        path,
    )
    marks = svetlana_marks(path, read_pickle(path), ("dead", "alive"))
    assert [(m.image, m.name) for m in marks] == [("x.tif", "dead"), ("y.tif", "alive"), ("y.tif", "dead")]
    with pytest.raises(InputError, match="class 2; expected: 1 classes, as named"):
        svetlana_marks(path, read_pickle(path), ("dead",))


@pytest.mark.parametrize("more", [{"regionprops": [1]}, {"labels_list": 7}, {"regionprops": [{"label": 1}] * 3}])
def test_annotations_of_another_form_are_refused(tmp_path, more):
    path = labels_file(tmp_path / "labels", [1, 2, 1], **more)
    with pytest.raises(InputError, match="not annotations as SVETLANA saves them"):
        svetlana_marks(path, read_pickle(path))


def test_the_command_writes_marks_and_classifiers(tmp_path, capsys):
    path, out = labels_file(tmp_path / "labels", [1, 2, 1]), tmp_path / "marks.csv"
    arguments = ["classify", "import", path, "--out", str(out), "--class", "ring", "--class", "dot"]
    assert run([*arguments, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["n"], shown["classes"], shown["side"]) == (3, ["dot", "ring"], 40)
    marks = read_marks(out)
    assert [(mark.name, mark.point, mark.image) for mark in marks[1:]] == [
        ("dot", (5.0, 6.0), "cells.tif"),
        ("ring", (50.0, 60.0), "cells.tif"),
    ]
    assert run(arguments) == 2
    assert "is there already" in capsys.readouterr().err
    network = saved(tmp_path / "n.pth", lived(CNN2D(4, 2)))
    assert run(["classify", "import", network, "--out", str(tmp_path / "net")]) == 2
    assert "a network, and no channels" in capsys.readouterr().err
    assert run(["classify", "import", network, "--out", str(tmp_path / "net"), "--channel", "dapi"]) == 0
    assert "classifier, patches of 16 px; class_1, class_2" in capsys.readouterr().out
    assert load_classifier(tmp_path / "net").config.channels == ("dapi",)
