"""Feature tables under the column names of other tools.

`pycytominer` finds features by their prefix (`Cells_`, `Nuclei_`, `Cytoplasm_`: the compartment) and treats `Metadata_`
columns as description of a row. PYCYTOMINER maps our columns to CellProfiler's names:

    area                 ▶ Nuclei_AreaShape_Area             label ▶ Metadata_ObjectNumber
    intensity_mean_dapi  ▶ Nuclei_Intensity_MeanIntensity_dapi

Lengths stay in px, as in CellProfiler, so columns in um are left out. Three things differ from CellProfiler:
intensities are those of the image, not scaled to 0 to 1; textures combine all directions, hence `_1_all_32` (distance,
directions, levels); the ring has no name there and gets one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import pyarrow
import pyarrow.compute

from sketchscale.errors import InputError, UnknownNameError
from sketchscale.objects.measurement.features import FEATURES
from sketchscale.objects.measurement.textures import LEVELS

__all__ = ["COMPARTMENTS", "PYCYTOMINER", "compartment_of", "pycytominer_batches", "pycytominer_names"]

COMPARTMENTS = ("Cells", "Nuclei", "Cytoplasm")
"""Prefixes that pycytominer knows."""

_TEXTURE = f"1_all_{LEVELS}"

PYCYTOMINER: dict[str, str] = {
    "z": "Location_Center_Z",
    "y": "Location_Center_Y",
    "x": "Location_Center_X",
    "area": "AreaShape_Area",
    "volume": "AreaShape_Volume",
    "box_z_start": "AreaShape_BoundingBoxMinimum_Z",
    "box_y_start": "AreaShape_BoundingBoxMinimum_Y",
    "box_x_start": "AreaShape_BoundingBoxMinimum_X",
    "box_z_stop": "AreaShape_BoundingBoxMaximum_Z",
    "box_y_stop": "AreaShape_BoundingBoxMaximum_Y",
    "box_x_stop": "AreaShape_BoundingBoxMaximum_X",
    "axis_major": "AreaShape_MajorAxisLength",
    "axis_minor": "AreaShape_MinorAxisLength",
    "orientation": "AreaShape_Orientation",
    "eccentricity": "AreaShape_Eccentricity",
    "perimeter": "AreaShape_Perimeter",
    "equivalent_diameter": "AreaShape_EquivalentDiameter",
    "extent": "AreaShape_Extent",
    "solidity": "AreaShape_Solidity",
    "feret_diameter_max": "AreaShape_MaxFeretDiameter",
    "surface": "AreaShape_SurfaceArea",
    "euler_number": "AreaShape_EulerNumber",
    "intensity_mean": "Intensity_MeanIntensity_{channel}",
    "intensity_std": "Intensity_StdIntensity_{channel}",
    "intensity_min": "Intensity_MinIntensity_{channel}",
    "intensity_max": "Intensity_MaxIntensity_{channel}",
    "intensity_sum": "Intensity_IntegratedIntensity_{channel}",
    "intensity_p05": "Intensity_Percentile5Intensity_{channel}",
    "intensity_p25": "Intensity_LowerQuartileIntensity_{channel}",
    "intensity_p50": "Intensity_MedianIntensity_{channel}",
    "intensity_p75": "Intensity_UpperQuartileIntensity_{channel}",
    "intensity_p95": "Intensity_Percentile95Intensity_{channel}",
    "gradient_mean": "Intensity_MeanGradient_{channel}",
    "gradient_std": "Intensity_StdGradient_{channel}",
    "texture_contrast": f"Texture_Contrast_{{channel}}_{_TEXTURE}",
    "texture_correlation": f"Texture_Correlation_{{channel}}_{_TEXTURE}",
    "texture_homogeneity": f"Texture_InverseDifferenceMoment_{{channel}}_{_TEXTURE}",
    "texture_energy": f"Texture_RootAngularSecondMoment_{{channel}}_{_TEXTURE}",
    "nearest_distance": "Neighbors_FirstClosestDistance_Centroids",
    "neighbour_count": "Neighbors_NumberOfNeighbors_Centroids",
    "neighbour_area_mean": "Neighbors_MeanArea_Centroids",
    "neighbour_volume_mean": "Neighbors_MeanVolume_Centroids",
    "touching_count": "Neighbors_NumberOfNeighbors_Adjacent",
    "ring_mean": "Intensity_MeanRing_{channel}",
    "ring_std": "Intensity_StdRing_{channel}",
}
"""Our feature to CellProfiler's name without the compartment; other features are left out."""

_METADATA = {
    "label": "Metadata_ObjectNumber",
    "class": "Metadata_Class",
    "class_prob": "Metadata_ClassProbability",
    "class_source": "Metadata_ClassSource",
    "in_training": "Metadata_InTraining",
    "touches_edge": "Metadata_TouchesEdge",
    "crosses_tile_seam": "Metadata_CrossesTileSeam",
}


def compartment_of(labels: str) -> str:
    """Return the compartment after which a label image is named; "Cells" if there is none.

    >>> compartment_of("nuclei"), compartment_of("colonies")
    ('Nuclei', 'Cells')
    """
    return next((c for c in COMPARTMENTS if labels.lower().startswith(c.lower()[:4])), "Cells")


def pycytominer_names(columns: Iterable[str], compartment: str) -> dict[str, str]:
    """Map our columns to pycytominer's, in the order of the columns; those without a name there are left out.

    Args:
        columns: names of a feature table.
        compartment: one of COMPARTMENTS.

    Raises:
        UnknownNameError: the compartment is unknown to pycytominer.

    >>> pycytominer_names(["label", "intensity_mean_dapi"], "Nuclei")["intensity_mean_dapi"]
    'Nuclei_Intensity_MeanIntensity_dapi'
    """
    if compartment not in COMPARTMENTS:
        raise UnknownNameError.among("compartment", compartment, COMPARTMENTS)
    names: dict[str, str] = {}
    of_channels = [feature for feature in PYCYTOMINER if FEATURES[feature].of == "channel"]
    for column in columns:
        prefix = next((feature for feature in of_channels if column.startswith(f"{feature}_")), None)
        if column in _METADATA:
            names[column] = _METADATA[column]
        elif column in PYCYTOMINER and FEATURES[column].of == "object":
            names[column] = f"{compartment}_{PYCYTOMINER[column]}"
        elif prefix is not None:
            channel = column.removeprefix(f"{prefix}_")
            names[column] = f"{compartment}_{PYCYTOMINER[prefix].format(channel=channel)}"
    return names


def pycytominer_batches(
    batches: Iterable[pyarrow.RecordBatch], compartment: str, metadata: Mapping[str, str]
) -> Iterator[pyarrow.RecordBatch]:
    """Yield rows of a feature table under pycytominer's names; columns of metadata come first.

    Args:
        batches: of a feature table.
        compartment: one of COMPARTMENTS.
        metadata: columns with one value for all rows, such as {"Metadata_Well": "B03"}.

    Raises:
        InputError: no column has a name there.
        UnknownNameError: the compartment is unknown.
    """
    for batch in batches:
        names = pycytominer_names(batch.schema.names, compartment)
        if len(names) < 2:
            raise InputError.of(
                found=f"columns {', '.join(batch.schema.names)[:80]}",
                expected="a feature table",
                fix="measure the labels first",
            )
        columns = {key: pyarrow.array([value] * batch.num_rows, pyarrow.string()) for key, value in metadata.items()}
        found = {name: batch.column(column) for column, name in names.items()}
        if "orientation" in names:  # CellProfiler gives degrees, from the same axis
            turned = pyarrow.compute.multiply(batch.column("orientation"), 180 / math.pi)
            found[names["orientation"]] = turned
        described = {name: values for name, values in found.items() if name.startswith("Metadata_")}
        yield pyarrow.RecordBatch.from_pydict(columns | described | found)
