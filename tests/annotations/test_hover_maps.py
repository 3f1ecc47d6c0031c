from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sketchscale.annotations.hover_maps import maps_from_labels
from tests.oracles.maps import maps_by_object

LABELS = hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 4))


@settings(max_examples=50, deadline=None)
@given(LABELS)
def test_maps_equal_those_found_object_by_object(labels):
    maps = maps_from_labels(labels)
    assert np.array_equal(maps, maps_by_object(labels))
    assert np.abs(maps).max(initial=0) <= 1
    assert (maps[:, labels == 0] == 0).all()


@settings(max_examples=30, deadline=None)
@given(LABELS)
def test_transposing_swaps_h_and_v_and_ids_do_not_matter(labels):
    maps = maps_from_labels(labels)
    assert np.array_equal(maps_from_labels(labels.T), maps[[1, 0, 2]].transpose(0, 2, 1))
    assert np.array_equal(maps_from_labels(np.where(labels > 0, 90 - labels, 0)), maps)


def test_an_odd_object_is_zero_at_its_centre_and_one_at_its_ends():
    labels = np.zeros((5, 9), int)
    labels[1:4, 2:7] = 7
    h, v, m = maps_from_labels(labels)
    assert h[2, 2:7].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert v[1:4, 4].tolist() == [-1, 0, 1]
    assert m.sum() == 15
