"""Write places to draw as files that other tools open (CSV, JSON, GeoJSON), and as a contact sheet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

from sketchscale.config import Execution
from sketchscale.errors import InputError
from sketchscale.inference.where_next import mean_fields
from sketchscale.integration.plan import integrate
from sketchscale.io.stores.output_files import put_file
from sketchscale.options import NextOptions
from sketchscale.reports.sheet import Crop, contact_sheet
from sketchscale.workflow.csv_file import put_csv
from sketchscale.workflow.runner import Runner
from sketchscale.workflow.segment.job import flow_rule, prepare
from sketchscale.workflow.train.where_next import NextResult, Place, predict_box, sources_of

__all__ = ["check_extension", "draw_places", "save_places"]


def save_places(result: NextResult, out: str) -> list[str]:
    """Write the places as .csv or .json of all images, or as .geojson, one for each image; return the paths.

    Several images with places give `next-1-NAME.geojson`, `next-2-NAME.geojson` and so on from `next.geojson`.

    Raises:
        InputError: another extension.
        OutputError: it cannot be written.
    """
    check_extension(out)
    if out.lower().endswith(".csv"):
        return [put_csv(out, list(Place.__dataclass_fields__), (asdict(place).values() for place in result.places))]
    if out.lower().endswith(".json"):
        return [_put(out, json.dumps(asdict(result), indent=2) + "\n")]
    path = PurePosixPath(out)
    folder = out[: len(out) - len(path.name)]
    images = list(dict.fromkeys(place.image for place in result.places))
    written = []
    for number, image in enumerate(images, 1):
        name = path.name if len(images) == 1 else f"{path.stem}-{number}-{_short(image)}{path.suffix}"
        written.append(_put(folder + name, _geojson([p for p in result.places if p.image == image])))
    return written or [_put(out, _geojson([]))]


def check_extension(out: str) -> None:
    """Refuse an unknown file extension before the work starts.

    Raises:
        InputError: neither .geojson, .csv nor .json.
    """
    if PurePosixPath(out).suffix.lower() not in (".geojson", ".csv", ".json"):
        raise InputError.of(found=f"--out {out}", expected=".geojson, .csv or .json", fix="change its ending")


def _put(out: str, content: str | bytes) -> str:
    return put_file(out, content if isinstance(content, bytes) else content.encode())


def _short(image: str) -> str:
    """Return the last part of an address, with other characters than letters, digits, dots and dashes replaced."""
    name = image.rstrip("/").rpartition("/")[2].partition(".")[0]
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name)


def _geojson(places: Sequence[Place]) -> str:
    """Return boxes as QuPath annotations of class "draw here"; x before y, from the corner of the first pixel."""
    return json.dumps({"type": "FeatureCollection", "features": [_feature(place) for place in places]}) + "\n"


def _feature(place: Place) -> dict[str, Any]:
    y0, x0, y1, x1 = place.y0, place.x0, place.y1, place.x1
    numbers = {"score": place.score, "uncertainty": place.uncertainty, "novelty": place.novelty}
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]]},
        "properties": {
            "objectType": "annotation",
            "name": f"{place.rank}: {place.reason}",
            "classification": {"name": "draw here", "color": [255, 200, 40]},
            "measurements": numbers,
            "metadata": {"rank": str(place.rank), "image": place.image},
        },
    }


def draw_places(result: NextResult, options: NextOptions, out: str) -> str:
    """Write a contact sheet of the chosen boxes with the model's outlines as PNG; return its path.

    Raises:
        InputError: there is no place to show.
        OutputError: it cannot be written.
    """
    if not result.places:
        raise InputError.of(found="no place to draw", expected="a box without annotation", fix="use a smaller --size")
    images = list(dict.fromkeys(place.image for place in result.places))
    jobs = [prepare(image, options.segment, Execution()) for image in images]
    with Runner(Execution()) as runner:
        sources = dict(zip(images, sources_of(jobs, runner), strict=True))
    rule = {image: flow_rule(job.model, options.segment, "where-next") for image, job in zip(images, jobs, strict=True)}
    crops = []
    for place in result.places:
        pixels, views = predict_box(sources[place.image], place.box, options.size)
        labels = integrate(mean_fields(views), rule[place.image])
        crops.append(Crop(pixels=pixels, labels=labels, caption=f"{place.rank}  {_short(place.image)}"))
    return _put(out, contact_sheet(crops))
