"""A table of objects as a file for other tools: CSV, Parquet, pycytominer's names, AnnData.

    tables/<labels> ──rows, a group at a time──▶ csv, parquet, pycytominer     memory: one group
                    ──all rows──────────────────▶ anndata (.h5ad)              memory: the table

The file appears when it is complete. Every format gives image, plate, well and field of each row. A plate becomes one
table of all its images; a column that only some of them have is empty for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet

from sketchscale.errors import InputError, SetupError, UnknownNameError
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.table import read_batches, require_table, write_table
from sketchscale.io.stores.output_files import require_local, writing_file
from sketchscale.objects.measurement.profiles import compartment_of, pycytominer_batches
from sketchscale.workflow.images import expand, map_measured
from sketchscale.workflow.measure.count import missing_wells, well_of
from sketchscale.workflow.runner import refuse_existing

__all__ = ["FORMATS", "PROFILES", "ExportResult", "check_profile", "export_table", "write_profile"]

Batches = Iterable[pyarrow.RecordBatch]

_POSITIONS = ("label", "y", "x", "z", "y_um", "x_um", "z_um")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """The file that was written.

    Attributes:
        image: the image or plate.
        n: rows.
        images: how many images they are of.
        missing: images that were not measured, and wells of the plate without an image.
    """

    image: str
    path: str
    n: int
    images: int = 1
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """The table of one image."""

    image: str
    labels: str
    compartment: str

    def place(self) -> dict[str, str]:
        """Return plate, well and field; empty outside a plate."""
        plate, well = well_of(self.image)
        return {"plate": Path(plate).name, "well": well, "field": self.image.rsplit("/", 1)[-1] if plate else ""}

    def batches(self) -> Batches:
        """Yield the table with columns for the origin of each row."""
        for batch in read_batches(self.image, self.labels):
            for name, value in {"image": self.image, **self.place()}.items():
                batch = batch.append_column(name, pyarrow.array([value] * batch.num_rows, pyarrow.string()))
            yield batch

    def profile(self) -> Batches:
        """Yield the table under pycytominer's names."""
        place = self.place()
        names = {"Metadata_Plate": "plate", "Metadata_Well": "well", "Metadata_Site": "field"}
        metadata = {"Metadata_Image": self.image, **{name: place[key] for name, key in names.items()}}
        return pycytominer_batches(read_batches(self.image, self.labels), self.compartment, metadata)


def _source(address: str, labels: str, compartment: str | None) -> _Source:
    image = open_image(address)
    require_table(image.address, labels)
    return _Source(image=image.address, labels=labels, compartment=compartment or compartment_of(labels))


@contextmanager
def _writer(file: IO[bytes], path: str, schema: pyarrow.Schema) -> Iterator[Callable[[pyarrow.RecordBatch], None]]:
    if path.endswith(".parquet"):
        with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as parquet:
            yield parquet.write_batch
    else:
        with pyarrow.csv.CSVWriter(file, schema) as text:
            yield text.write_batch


def _joined(streams: Sequence[Callable[[], Batches]], path: str) -> Batches:
    """Yield the rows of all tables one after another, each with the columns of all."""
    if len(streams) == 1:
        return streams[0]()
    firsts = [next(iter(stream())) for stream in streams]
    schemas = [first.schema.remove_metadata() for first in firsts]
    try:
        schema = pyarrow.unify_schemas(schemas, promote_options="permissive")
    except pyarrow.ArrowException as error:
        raise InputError.of(
            found=f"{path}: tables that do not fit together ({str(error).splitlines()[0][:120]})",
            expected="tables of one kind",
            fix="measure all images with the same options, or export them one by one",
        ) from error
    return (_with_columns(batch, schema) for stream in streams for batch in stream())


def _with_columns(batch: pyarrow.RecordBatch, schema: pyarrow.Schema) -> pyarrow.RecordBatch:
    columns = [
        batch.column(field.name).cast(field.type)
        if field.name in batch.schema.names
        else pyarrow.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pyarrow.RecordBatch.from_arrays(columns, schema=schema)


def _write_rows(streams: Sequence[Callable[[], Batches]], path: str) -> int:
    """Write rows into a file of the kind of its extension, one batch in memory; return their number."""
    rows = 0
    with writing_file(path) as file, ExitStack() as stack:
        write: Callable[[pyarrow.RecordBatch], None] | None = None
        for batch in _joined(streams, path):
            write = write or stack.enter_context(_writer(file, path, batch.schema))
            write(batch)
            rows += batch.num_rows
    return rows


def _anndata(sources: Sequence[_Source], path: str) -> int:
    """Write AnnData; X: numbers; obs: label, position, class and so on; obsm["spatial"]: (x, y) in px, as in squidpy.

    Rows are named after their labels; those of several images after image and label, and the images are the regions.
    """
    try:
        import anndata
    except ImportError as error:
        raise SetupError(
            "--format anndata needs the package anndata; expected: it is installed; "
            "to fix: pip install 'sketchscale[anndata]'"
        ) from error
    several = len(sources) > 1
    table = pyarrow.Table.from_batches(list(_joined([source.batches for source in sources], path)))
    names = [
        field.name
        for field in table.schema
        if (pyarrow.types.is_floating(field.type) or pyarrow.types.is_integer(field.type))
        and field.name not in _POSITIONS
        and not field.name.startswith(("box_", "class", "prob_"))
    ]
    numbers = [np.asarray(table.column(name).to_numpy(), np.float64) for name in names]
    frame = table.drop_columns(names).to_pandas()
    for name in frame.columns[frame.isna().any()]:  # of images without this column: HDF5 has no mixed types
        if frame[name].dtype.kind != "f":
            is_flag = pyarrow.types.is_boolean(table.field(name).type)
            frame[name] = frame[name].astype("boolean" if is_flag else "category")
    label = frame["label"].astype(str)
    frame.index = (frame["image"] + ":" + label if several else label).to_numpy()
    frame["region"] = frame["image"] if several else sources[0].labels
    data = anndata.AnnData(X=np.stack(numbers, axis=1) if names else np.zeros((len(frame), 0)), obs=frame)
    data.var_names = names
    data.obsm["spatial"] = np.stack([table.column(name).to_numpy() for name in ("x", "y")], axis=1)
    data.obs["region"] = data.obs["region"].astype("category")
    region = [source.image for source in sources] if several else sources[0].labels
    data.uns["spatialdata_attrs"] = {"region": region, "region_key": "region", "instance_key": "label"}
    with writing_file(require_local(path)) as file:
        data.write_h5ad(Path(file.name))
    return int(data.n_obs)


def _plain(sources: Sequence[_Source], path: str) -> int:
    return _write_rows([source.batches for source in sources], path)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Format:
    write: Callable[[Sequence[_Source], str], int]
    suffixes: tuple[str, ...]


FORMATS: dict[str, _Format] = {
    "csv": _Format(write=_plain, suffixes=(".csv",)),
    "parquet": _Format(write=_plain, suffixes=(".parquet",)),
    "pycytominer": _Format(
        write=lambda sources, path: _write_rows([source.profile for source in sources], path),
        suffixes=(".csv", ".parquet"),
    ),
    "anndata": _Format(write=_anndata, suffixes=(".h5ad",)),
}
"""Name of a format to the function that writes it, and the extensions of its files."""

PROFILES = ("pycytominer",)
"""Kinds of column names for a second table of `measure`."""


def export_table(
    address: str, labels: str, out: str, *, format: str = "csv", compartment: str | None = None, overwrite: bool = False
) -> ExportResult:
    """Write the table of an image's objects as a file; of a plate, one table of all its images.

    Args:
        address: of an image or a plate; or a glob pattern.
        labels: name of the labels that were measured.
        out: file; its extension has to be one of the format's.
        format: one of FORMATS.
        compartment: prefix of pycytominer's names; from the name of the labels when None.

    Raises:
        MissingDataError: the labels were not measured, of a plate in no image.
        UnknownNameError: no such format or compartment.
        InputError: another extension, or tables that do not fit together.
        OutputExistsError: the file is there.
        SetupError: the format needs a package that is not installed.
    """
    if format not in FORMATS:
        raise UnknownNameError.among("format", format, FORMATS)
    chosen = FORMATS[format]
    if not out.endswith(chosen.suffixes):
        raise InputError.of(
            found=f"{out} for format {format}", expected=f"a name that ends with {' or '.join(chosen.suffixes)}",
            fix="rename --out, or choose another --format",
        )  # fmt: skip
    refuse_existing(out, overwrite=overwrite)
    addresses = expand([address])
    found = map_measured(addresses, lambda one: _source(one, labels, compartment))
    sources = [source for source in found if source is not None]
    missing = [f"{one}: no table {labels!r}" for one, source in zip(addresses, found, strict=True) if source is None]
    missing += [f"{plate}: well {well} has no image" for plate, well in missing_wells([address])]
    n = chosen.write(sources, out)
    return ExportResult(image=address, path=out, n=n, images=len(sources), missing=tuple(missing))


def check_profile(profile: str | None) -> None:
    """Refuse an unknown profile before anything is written; None is no profile.

    Raises:
        UnknownNameError: lists the known ones.
    """
    if profile is not None and profile not in PROFILES:
        raise UnknownNameError.among("profile", profile, PROFILES)


def write_profile(address: str, labels: str, *, profile: str = "pycytominer", compartment: str | None = None) -> str:
    """Write an image's table a second time under other names; return the new table's name, `<labels>_<profile>`.

    Raises:
        MissingDataError: the labels were not measured.
        UnknownNameError: no such profile or compartment.
    """
    check_profile(profile)
    source = _source(address, labels, compartment)
    name = f"{labels}_{profile}"
    # The layout of tables requires a column `label`; pycytominer ignores it.
    rows = (batch.append_column("label", batch.column("Metadata_ObjectNumber")) for batch in source.profile())
    write_table(source.image, name, rows, region=labels, attributes={"sketchscale": {"stage": "measure"}})
    return name
