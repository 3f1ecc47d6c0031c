"""Tables for other tools: read back by pandas, anndata and ngio, from an image and from a field of a plate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sketchscale.cli import run
from sketchscale.errors import InputError, MissingDataError, OutputExistsError, SetupError, UnknownNameError
from sketchscale.io.table import list_tables, read_table
from sketchscale.workflow.export_table import export_table, write_profile
from tests.workflow.finished import copy_of


@pytest.fixture(scope="module")
def image(done: Path) -> str:
    return str(done / "image.zarr")


def test_csv_and_parquet_have_the_rows_of_the_table(image: str, tmp_path: Path) -> None:
    table = read_table(image, "nuclei").to_pandas()
    for name, read in (("t.csv", pd.read_csv), ("t.parquet", pd.read_parquet)):
        kind = name.split(".")[1]
        result = export_table(image, "nuclei", str(tmp_path / name), format=kind)
        found = read(tmp_path / name)
        assert result.n == len(found) == len(table)
        np.testing.assert_allclose(found["solidity"], table["solidity"])
        assert found["class"].tolist() == table["class"].tolist()
        assert set(found["image"]) == {image}


def test_pycytominer_gets_features_and_metadata(image: str, tmp_path: Path) -> None:
    out = str(tmp_path / "p.parquet")
    assert run(["table", "export", image, "--format", "pycytominer", "--out", out]) == 0
    found, table = pd.read_parquet(out), read_table(image, "nuclei").to_pandas()
    assert all(name.startswith(("Metadata_", "Nuclei_")) for name in found.columns)
    assert found["Metadata_ObjectNumber"].tolist() == table["label"].tolist()
    assert found["Metadata_Class"].tolist() == table["class"].tolist()
    assert found["Nuclei_AreaShape_Area"].tolist() == table["area"].tolist()
    features = found[[name for name in found.columns if name.startswith("Nuclei_")]]
    assert features.dtypes.map(lambda kind: kind.kind in "if").all()


def test_anndata_has_numbers_in_x_and_the_rest_in_obs(image: str, tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    out = tmp_path / "t.h5ad"
    export_table(image, "nuclei", str(out), format="anndata")
    data, table = anndata.read_h5ad(out), read_table(image, "nuclei").to_pandas()
    np.testing.assert_array_equal(np.asarray(data[:, "area"].X).ravel(), table["area"])
    assert data.obs["label"].tolist() == table["label"].tolist()
    assert data.obs["class"].tolist() == table["class"].tolist()
    np.testing.assert_array_equal(data.obsm["spatial"], table[["x", "y"]])
    assert not {"y", "x", "label", "box_y_start", "class_prob"} & set(data.var_names)
    assert data.uns["spatialdata_attrs"]["instance_key"] == "label"
    assert not list(tmp_path.glob("*.partial"))


def test_without_anndata_one_line_says_what_to_install(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "anndata", None)
    with pytest.raises(SetupError, match=r"pip install 'sketchscale\[anndata\]'"):
        export_table(image, "nuclei", str(tmp_path / "t.h5ad"), format="anndata")
    assert not list(tmp_path.iterdir())


def test_a_profile_is_a_second_table_that_streams_and_is_listed(done: Path, tmp_path: Path) -> None:
    image = str(copy_of(done, tmp_path))
    assert write_profile(image, "nuclei", compartment="Cells") == "nuclei_pycytominer"
    assert "nuclei_pycytominer" in list_tables(image)
    found = read_table(image, "nuclei_pycytominer")
    assert found.column("Cells_AreaShape_Area").to_pylist() == read_table(image, "nuclei").column("area").to_pylist()


def test_what_cannot_be_exported_is_said_in_one_line(image: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        export_table(image, "nuclei", str(tmp_path / "t.csv"))
    with pytest.raises(UnknownNameError, match="unknown format"):
        export_table(image, "nuclei", str(tmp_path / "u.csv"), format="xlsx")
    with pytest.raises(InputError, match=r"ends with \.parquet"):
        export_table(image, "nuclei", str(tmp_path / "u.csv"), format="parquet")
    with pytest.raises(MissingDataError, match="sketchscale measure"):
        export_table(image, "cells", str(tmp_path / "u.csv"))
    with pytest.raises(UnknownNameError, match="unknown compartment"):
        export_table(image, "nuclei", str(tmp_path / "u.csv"), format="pycytominer", compartment="Organoids")
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
