"""Arrays with named axes (xarray): find axes by name in any order, and name the axes of labels."""

from __future__ import annotations

import re
from typing import Any

import numpy.typing as npt
import xarray

from sketchscale.errors import InputError
from sketchscale.io.ome_zarr.metadata import UNITS_UM

__all__ = ["named_labels", "pixels_by_name", "spacing_by_name"]

_ALIASES = {"channel": "c", "channels": "c", "band": "c"}
_UNNAMED = re.compile(r"dim_\d+")


def pixels_by_name(image: xarray.DataArray) -> xarray.DataArray:
    """Return the pixels as (y, x) or (z, y, x), after c where there is such an axis; a dask array stays lazy.

    Args:
        image: axes named y, x and perhaps c (or channel), t and z, in any case and order; t of length 1; z of length 1
            is left out. Axes without names, which xarray numbers, are taken in their order.

    Raises:
        InputError: another name, no y or x, or several time points.

    >>> pixels_by_name(xarray.DataArray([[[7], [8], [9]]], dims=("X", "Y", "z"))).dims
    ('y', 'x')
    """
    if all(_UNNAMED.fullmatch(str(name)) for name in image.dims):
        known = image.ndim in (2, 3)
        return image.rename(dict(zip(image.dims, "cyx"[3 - image.ndim :], strict=True))) if known else image
    names = {dim: _ALIASES.get(str(dim).lower(), str(dim).lower()) for dim in image.dims}
    found = ", ".join(map(str, image.dims))
    if not {"y", "x"} <= set(names.values()) <= set("tczyx") or len(set(names.values())) < len(names):
        raise InputError.of(
            found=f"a DataArray with the axes {found}",
            expected="y and x, and perhaps c, t and z",
            fix="name them with .rename(...)",
        )
    for dim, name in names.items():
        if name == "t" and image.sizes[dim] != 1:
            raise InputError.of(
                found=f"a DataArray with {image.sizes[dim]} positions along {dim}",
                expected="one",
                fix=f"choose one with .isel({dim}=0)",
            )
    chosen = image.isel({dim: 0 for dim, name in names.items() if name in "tz" and image.sizes[dim] == 1}, drop=True)
    named = chosen.rename({dim: names[dim] for dim in chosen.dims if dim != names[dim]})
    return named.transpose(*(name for name in "czyx" if name in named.dims))


def named_labels(labels: npt.NDArray[Any], pixels: xarray.DataArray, name: str) -> xarray.DataArray:
    """Return labels with the coordinates of their pixels, where those belong to z, y, x or to no axis."""
    dims = tuple("zyx"[-labels.ndim :])
    coordinates = {key: value for key, value in pixels.coords.items() if set(value.dims) <= set(dims)}
    return xarray.DataArray(labels, dims=dims, coords=coordinates, name=name)


def spacing_by_name(plane: xarray.DataArray) -> tuple[float, float] | None:
    """Return um per pixel (y, x), from coordinates whose attribute `units` is one of length; None without these."""
    steps = []
    for axis in "yx":
        coordinate = plane.coords.get(axis)
        if coordinate is None or coordinate.attrs.get("units") not in UNITS_UM or coordinate.size < 2:
            return None
        steps.append(float(coordinate[1] - coordinate[0]) * UNITS_UM[coordinate.attrs["units"]])
    return (steps[0], steps[1]) if min(steps) > 0 else None
