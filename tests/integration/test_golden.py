"""Labels of given fields are those that were stored once: on any processor, in memory and cut into any blocks."""

from __future__ import annotations

import pytest

from tests.golden.cases import BLOCKS, LABELS, REFINED, digest, labels_of
from tests.golden.make import read


@pytest.mark.parametrize("name", LABELS)
def test_labels_are_the_stored_ones_whatever_the_blocks(name: str) -> None:
    kind, fields, rule = LABELS[name]
    for block in (None, *BLOCKS[kind]):
        assert digest(labels_of(kind, fields, rule, block)) == read("integration")[name], block


@pytest.mark.parametrize("name", REFINED)
def test_refined_labels_are_the_stored_ones(name: str) -> None:
    assert digest(labels_of(*REFINED[name])) == read("integration")[name]
