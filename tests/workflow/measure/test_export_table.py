"""Tables for other tools: read back by pandas, anndata and ngio, from an image and from a field of a plate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pytest

from sketchscale.cli import run
from sketchscale.errors import InputError, MissingDataError, OutputExistsError, SetupError, UnknownNameError
from sketchscale.io.ome_zarr.groups import write_attributes
from sketchscale.io.ome_zarr.table import list_tables, read_table, write_table
from sketchscale.workflow.measure.export_table import export_table, write_profile
from tests.pipeline import store_image
from tests.workflow.classify.test_propose import stored
from tests.workflow.finished import copy_of
from tests.workflow.measure.test_count import plate


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


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A plate: A01 with two fields, B11 with one that has no classes and one that was not measured, C02 empty."""
    address = plate(tmp_path_factory.mktemp("screen"))
    stored(Path(address) / "B/11", "0", 12, classified=False)
    store_image(Path(address) / "B/11/1", np.zeros((20, 20), np.uint8))
    well = {"ome": {"version": "0.5", "well": {"images": [{"path": "0"}, {"path": "1"}]}}}
    write_attributes(f"{address}/B/11", "", well, "0.5")
    return address


def test_a_plate_becomes_one_table_that_says_what_it_lacks(
    screen: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "plate.csv")
    assert run(["table", "export", screen, "--out", out]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{out}: 33 rows of 3 images\n"
    assert shown.err.splitlines() == [
        f"left out: {screen}/B/11/1: no table 'nuclei'",
        f"left out: {screen}: well C02 has no image",
    ]
    found = pd.read_csv(out)
    assert found.groupby(["well", "field"]).size().to_dict() == {("A01", 0): 10, ("A01", 1): 11, ("B11", 0): 12}
    assert set(found["plate"]) == {"p.zarr"}
    assert found["class"].isna().tolist() == [well == "B11" for well in found["well"]]
    table = read_table(f"{screen}/A/1/1", "nuclei").to_pandas()
    rows = found[found["image"] == f"{screen}/A/1/1"]
    np.testing.assert_allclose(rows["mean"], table["mean"])


def test_every_format_takes_a_plate(screen: str, tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    for name in ("t.parquet", "p.parquet", "t.h5ad"):
        kind = {"t.parquet": "parquet", "p.parquet": "pycytominer", "t.h5ad": "anndata"}[name]
        assert export_table(screen, "nuclei", str(tmp_path / name), format=kind).n == 33
    profile = pd.read_parquet(tmp_path / "p.parquet")
    assert sorted(set(profile["Metadata_Well"])) == ["A01", "B11"]
    data = anndata.read_h5ad(tmp_path / "t.h5ad")
    assert data.obs_names.is_unique
    assert set(data.obs["region"]) == set(data.uns["spatialdata_attrs"]["region"])
    assert len(set(data.obs["region"])) == 3
    assert data.obs["well"].value_counts().to_dict() == {"A01": 21, "B11": 12}


def test_a_plate_without_any_table_is_refused(screen: str, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="sketchscale measure"):
        export_table(screen, "cells", str(tmp_path / "t.csv"))
    assert not list(tmp_path.iterdir())


def test_tables_of_other_kinds_are_not_mixed(tmp_path: Path) -> None:
    address = plate(tmp_path)
    table = pyarrow.table({"label": [1], "y": [0.5], "x": [0.5], "area": ["large"]})
    write_table(f"{address}/A/1/1", "nuclei", table, region="nuclei")
    with pytest.raises(InputError, match="do not fit together"):
        export_table(address, "nuclei", str(tmp_path / "t.csv"))
    assert not (tmp_path / "t.csv").exists()
