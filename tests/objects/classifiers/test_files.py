"""Classifiers on disk: the same when they come back, refused in one line when they are damaged."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from sketchscale.errors import InputError, MissingDataError
from sketchscale.objects.classifiers import load_classifier, save_classifier
from tests.objects.classifiers.drawn import discs, table_rows
from tests.objects.classifiers.test_training import learned

KINDS = ("light", "resnet18", "random-forest", "gradient-boosting", "ensemble")


@pytest.fixture(scope="module")
def trained():
    patches, names = discs(12, 0)
    return {kind: learned(patches, names, kind=kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_classifier_comes_back_the_same(trained, tmp_path, kind):
    save_classifier(tmp_path / "cls", trained[kind])
    back = load_classifier(tmp_path / "cls")
    assert (back.config, back.sha256, back.provenance) == (
        trained[kind].config,
        trained[kind].sha256,
        dict(trained[kind].provenance),
    )
    patches, _ = discs(5, 3)
    rows = table_rows(patches)
    np.testing.assert_array_equal(back.predict([patches], rows), trained[kind].predict([patches], rows))
    assert pickle.loads(pickle.dumps(back)).sha256 == back.sha256


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("config.json", b"{"),
        ("config.json", b'{"side": 3}'),
        ("config.json", b"[]"),
        ("classifier.safetensors", b"junk"),
    ],
)
def test_a_damaged_classifier_is_refused_in_one_line(trained, tmp_path, name, data):
    save_classifier(tmp_path, trained["light"])
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match="is not a classifier") as caught:
        load_classifier(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"kind": "cloud"}, {"more": 1}, {"features": ["area"]}, {"patches": {"x": 1}}])
def test_settings_that_do_not_fit_are_refused(trained, tmp_path, change):
    save_classifier(tmp_path, trained["ensemble"])
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError) as caught:
        load_classifier(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["light", "random-forest"])
def test_changed_weights_and_missing_folders_are_refused(trained, tmp_path, kind):
    save_classifier(tmp_path, trained[kind])
    path = tmp_path / "classifier.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InputError):
        load_classifier(tmp_path)
    with pytest.raises(MissingDataError, match="is not a classifier"):
        load_classifier(tmp_path / "none")
