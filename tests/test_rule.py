"""The rule that models, options and integration share: one declaration, and the first value that is set."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
from pydantic import TypeAdapter

from sketchscale.errors import InputError
from sketchscale.integration.config import IntegrationConfig
from sketchscale.networks.model import ModelConfig
from sketchscale.options import SegmentOptions
from sketchscale.rule import JoiningRule, ModelRule
from sketchscale.settings import options_of, resolve

SHARED = [field.name for field in dataclasses.fields(ModelRule)]


@pytest.mark.parametrize("name", SHARED)
def test_a_field_of_the_rule_is_declared_once(name: str) -> None:
    kinds = (SegmentOptions, ModelConfig, IntegrationConfig)
    declared = [options_of(kind)[name].metadata["option"] for kind in kinds]
    assert declared[0] is declared[1] is declared[2]
    assert getattr(SegmentOptions(), name) is None


def test_the_users_value_comes_before_the_models_and_that_before_the_default() -> None:
    options = SegmentOptions(prominence=0.0, max_size=90, steps=7)
    config = ModelConfig(prominence=0.5, join_share=0.3, min_size=0)
    rule = resolve(IntegrationConfig, options, config, threshold=-1.0)
    assert (rule.prominence, rule.join_share, rule.min_size, rule.link_radius) == (0.0, 0.3, 0, 2)
    assert (rule.max_size, rule.steps, rule.threshold) == (90, 7, -1.0)
    assert pickle.loads(pickle.dumps(rule)) == rule


def test_a_model_has_a_value_for_all_that_is_its_own() -> None:
    for name in {field.name for field in dataclasses.fields(JoiningRule)} - {"join_share"}:
        for wrong in (None, "x"):
            with pytest.raises(InputError, match=name):
                ModelConfig(**{name: wrong})
    with pytest.raises(ValueError, match="link_radius 0; expected: 1 to 64 px"):
        TypeAdapter(ModelConfig).validate_python({"link_radius": 0})
    assert TypeAdapter(ModelConfig).validate_python({"join_share": None}) == ModelConfig()
