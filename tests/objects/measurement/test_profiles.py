"""Names of other tools: what pycytominer finds, and how wide a name reaches."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest

from sketchscale.errors import InputError, UnknownNameError
from sketchscale.objects.measurement.features import FEATURES
from sketchscale.objects.measurement.profiles import PYCYTOMINER, compartment_of, pycytominer_batches, pycytominer_names


def infer_features(columns, compartments=("Cells", "Nuclei", "Cytoplasm")):
    """pycytominer's rule: a feature starts with a compartment."""
    return [name for name in columns if name.startswith(compartments)]


def test_every_feature_has_a_name_there_or_is_a_unit_flag_or_flag_of_ours():
    left_out = [n for n in FEATURES if n not in PYCYTOMINER and "_um" not in n]
    assert left_out == ["axis_middle", "touches_edge", "crosses_tile_seam"]
    assert len(set(PYCYTOMINER.values())) == len(PYCYTOMINER)
    for name, value in PYCYTOMINER.items():
        assert ("{channel}" in value) == (FEATURES[name].of == "channel"), name


def test_columns_of_a_table_get_the_names_that_pycytominer_finds():
    batch = pa.RecordBatch.from_pydict(
        {
            "label": [3, 7],
            "area": [10, 20],
            "orientation": [math.pi / 2, -math.pi / 4],
            "area_um2": [2.5, 5.0],
            "intensity_mean_dapi_405": [1.5, 2.5],
            "touches_edge": [True, False],
            "class": ["ripe", "unripe"],
            "notes": ["", ""],
        }
    )
    row = next(iter(pycytominer_batches([batch], "Nuclei", {"Metadata_Well": "B03"}))).to_pylist()[0]
    assert row == {
        "Metadata_Well": "B03",
        "Metadata_ObjectNumber": 3,
        "Metadata_TouchesEdge": True,
        "Metadata_Class": "ripe",
        "Nuclei_AreaShape_Area": 10,
        "Nuclei_AreaShape_Orientation": 90.0,
        "Nuclei_Intensity_MeanIntensity_dapi_405": 1.5,
    }
    assert infer_features(row) == [
        "Nuclei_AreaShape_Area",
        "Nuclei_AreaShape_Orientation",
        "Nuclei_Intensity_MeanIntensity_dapi_405",
    ]


def test_an_empty_table_keeps_its_columns():
    batch = pa.RecordBatch.from_pydict({"label": pa.array([], pa.int64()), "area": pa.array([], pa.int64())})
    found = next(iter(pycytominer_batches([batch], "Cells", {"Metadata_Well": "A01"})))
    assert found.schema.names == ["Metadata_Well", "Metadata_ObjectNumber", "Cells_AreaShape_Area"]
    assert found.num_rows == 0


def test_the_compartment_follows_the_name_of_the_labels():
    assert [compartment_of(n) for n in ("nuclei", "Nucleus", "cells", "cytoplasm", "osteoclasts")] == [
        "Nuclei",
        "Nuclei",
        "Cells",
        "Cytoplasm",
        "Cells",
    ]


def test_what_pycytominer_would_not_find_is_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'Nuclei'"):
        pycytominer_names(["label", "area"], "Nucleii")
    with pytest.raises(InputError, match="expected: a feature table"):
        list(pycytominer_batches([pa.RecordBatch.from_pydict({"label": [1]})], "Cells", {}))
