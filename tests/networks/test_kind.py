"""The kind of an image: counts that add up over any cut, intervals of examples, and the rule of two of three."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from sketchscale.errors import InputError
from sketchscale.networks.checkpoint import load_model, save_model
from sketchscale.networks.kind import (
    FieldLevels,
    Kind,
    Statistics,
    add_counts,
    count_fields,
    kind_of,
    statistics_of,
    unfamiliar,
)

LEVELS = FieldLevels(threshold=-2.0, decided=-4.5)
KIND = Kind(brightness=((0.0, 0.2),), undecided=(0.1, 0.3), short_flow=(0.0, 0.2), images=9)
KNOWN = Statistics(brightness=(0.1,), undecided=0.2, short_flow=0.1)


def random_fields(seed: int, shape: tuple[int, int] = (150, 90)) -> npt.NDArray[np.float16]:
    return (
        np.random.default_rng(seed)
        .normal([[[0]], [[0]], [[-3]]], [[[0.6]], [[0.6]], [[2]]], (3, *shape))
        .astype(np.float16)
    )


def test_counts_are_those_of_the_definition_and_add_up_over_any_cut() -> None:
    fields = random_fields(1)
    y, x, distance = fields.astype(np.float32)
    inside = distance > -2
    expected = {
        "foreground": int(inside.sum()),
        "short_flow": int((inside & (y**2 + x**2 < 0.25)).sum()),
        "background": int((~inside).sum()),
        "undecided": int((~inside & (distance > -4.5)).sum()),
    }
    assert count_fields(fields, LEVELS) == expected
    assert min(expected.values()) > 100
    blocks = [fields[:, a : a + 47, b : b + 31] for a in range(0, 150, 47) for b in range(0, 90, 31)]
    assert add_counts(count_fields(block, LEVELS) for block in blocks) == expected


def test_levels_follow_the_scale_at_which_the_network_saw_the_image() -> None:
    fields = random_fields(2)
    halved = fields.copy()
    halved[2] = fields[2] / 2
    assert count_fields(halved, FieldLevels.of(-2.0, -5.0, 2.0)) == count_fields(fields, FieldLevels.of(-2.0, -5.0, 1))


def test_an_image_without_foreground_has_no_share_of_short_flow() -> None:
    found = statistics_of([0.5], {"foreground": 0, "short_flow": 0, "background": 4, "undecided": 1})
    assert found == Statistics(brightness=(0.5,), undecided=0.25, short_flow=0.0)


def test_intervals_are_those_of_the_examples_made_wider_within_0_and_1() -> None:
    examples = [KNOWN, replace(KNOWN, brightness=(0.5,), undecided=0.25)]
    kind = kind_of(examples, wider=0.5, least=0.05)
    assert kind == Kind(brightness=((0.0, 0.7),), undecided=(0.15, 0.3), short_flow=(0.05, 0.15), images=2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"brightness": (0.9,)}, ""),
        ({"short_flow": 0.9}, ""),
        ({"brightness": (0.9,), "short_flow": 0.3}, "median pixel lies at 90 %"),
        ({"brightness": (0.21,), "undecided": 0.8}, r"undecided in 80 % of the background \(known: 10 to 30 %\)"),
        ({"undecided": 0.0, "short_flow": 0.6}, "flow is short in 60 %"),
    ],
    ids=str,
)
def test_two_of_three_statistics_outside_make_an_image_unknown(changes: dict[str, float], said: str) -> None:
    """One alone does not; the farthest outside is named."""
    found = unfamiliar(replace(KNOWN, **changes), KIND)  # type: ignore[arg-type]
    assert re.search(said, found) if said else found == ""


def test_several_channels_count_as_one_statistic_and_absent_ones_not_at_all() -> None:
    kind = replace(KIND, brightness=((0.0, 0.2), (0.0, 0.2)))
    assert not unfamiliar(replace(KNOWN, brightness=(0.9, 0.9)), kind)
    assert not unfamiliar(replace(KNOWN, undecided=0.9), kind)
    assert "90 %" in unfamiliar(replace(KNOWN, brightness=(0.1, 0.9), short_flow=0.21), kind)


def test_the_record_travels_in_the_configuration_and_models_without_one_load(tmp_path: Path, model: str) -> None:
    plain = load_model(model)
    assert plain.config.kind is None
    folder = tmp_path / "known"
    save_model(folder, plain.network, replace(plain.config, kind=KIND), plain.provenance)
    assert load_model(folder).config.kind == KIND
    path = folder / "config.json"
    old = {key: value for key, value in json.loads(path.read_text()).items() if key != "kind"}
    path.write_text(json.dumps(old))
    assert load_model(folder).config == plain.config
    path.write_text(
        json.dumps(
            {**old, "kind": {"brightness": [[0.4, 0.1]], "undecided": [0, 1], "short_flow": [0, 1], "images": 1}}
        )
    )
    with pytest.raises(InputError, match=r"config\.json is not a model configuration"):
        load_model(folder)
