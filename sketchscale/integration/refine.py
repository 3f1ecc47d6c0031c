"""After merging: fill the holes of objects, and drop objects whose flow does not fit their shape.

    merge ─▶ sizes ─▶ fill holes ─▶ flow error ─▶ numbers 1, 2, ... in raster order of first pixels

Both depend only on one object's pixels and what lies within 3 px of its box, never on blocks; so an object of any size
is exact (its flow depends on its whole outline, as deep as it is thick).

  hole         a set of background pixels that touch along the axes, all of whose other neighbours along the axes belong
               to one object, not at the image's border. Filled when its area is at most `fill_holes` times the
               object's. A set that holds or touches another object is no hole: no object loses pixels.
  flow error   the mean squared difference (0 to 4) between the predicted unit flow and the flow of the object's final
               mask by the solver of the training targets, over the pixels that have a direction. In a volume this is
               done in each section (y, x), as it was imaged, for any distance between sections.

Source: the filter is Cellpose's (Stringer et al. 2021), there with its own diffusion flow; here with this system's
targets, because another kind of flow rejects good masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sketchscale.annotations.targets import targets_from_sketch
from sketchscale.geometry import Box
from sketchscale.integration.fixed_point import Mask, Uint32
from sketchscale.rule import Refinement

__all__ = ["MARGIN", "RefineConfig", "flow_error", "holes_of", "refine_labels", "refine_object"]

MARGIN = 3
"""What is read around an object's box, px: the window of the targets' flow reaches 2."""

Labels = npt.NDArray[np.unsignedinteger]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefineConfig(Refinement):
    """The changes to objects after merging (benchmarks/results/refine.txt)."""

    @property
    def active(self) -> bool:
        """Whether there is anything to do."""
        return self.fill_holes is not None or self.flow_error is not None


def holes_of(labels: Labels, label: int, largest: float) -> Mask:
    """Return a mask of the holes of one object.

    Args:
        labels: of any number of axes, the object's box and at least one pixel around it, or up to the image's border.
        largest: px; larger holes stay.

    >>> ring = np.array([[1, 1, 1, 1], [1, 0, 0, 1], [1, 1, 1, 1]], np.uint32)
    >>> holes_of(np.pad(ring, 1), 1, largest=2).sum(), holes_of(ring[1:], 1, largest=2).sum()
    (np.int64(2), np.int64(0))
    """
    background: Mask = labels == 0
    parts, count = ndimage.label(background)
    if count == 0:
        return background
    hole: Mask = np.bincount(parts.ravel(), minlength=count + 1) <= largest
    hole[0] = False
    for axis in range(labels.ndim):
        hole[parts.take([0, -1], axis=axis)] = False
    others = ~background & (labels != label)
    if others.any():
        hole[parts[ndimage.binary_dilation(others) & background]] = False
    return np.asarray(hole[parts], np.bool_)


def flow_error(mask: Mask, flow: npt.NDArray[np.floating]) -> float:
    """Return how far the predicted flow is from the training target of a mask.

    Args:
        mask: (y, x) or (z, y, x) of one object, with `MARGIN` px around its box or up to the image's border.
        flow: (2, y, x) or (3, z, y, x), predicted, of any length.

    Returns:
        Mean squared difference of unit vectors, 0 to 4; 0 where no pixel has a direction (an object of one pixel, or
        one that fills the image).
    """
    plane = mask.shape[-2:]
    predicted = flow[-2:].astype(np.float32).reshape(2, -1, *plane)
    differences = [np.empty((2, 0), np.float32)]
    for section, part in zip(mask.reshape(-1, *plane), predicted.swapaxes(0, 1), strict=True):
        if section.any():
            target = targets_from_sketch(section.astype(np.int32))
            length = np.sqrt((part**2).sum(axis=0))
            compared = section & target.flow_known & target.flow.any(axis=0) & np.isfinite(length)
            unit = part[:, compared] / np.maximum(length[compared], np.float32(1e-6))
            differences.append(np.asarray(unit - target.flow[:, compared], np.float32))
    errors = np.concatenate(differences, axis=1)
    return float((errors**2).sum(axis=0).mean(dtype=np.float64)) if errors.size else 0.0


def refine_object(
    labels: Labels, flow: npt.NDArray[np.floating], label: int, config: RefineConfig
) -> tuple[Mask | None, float]:
    """Return the holes of one object to fill, or None, and its flow error, 0 when errors are not asked for.

    Args:
        labels, flow: labels and flow channels of `crop_of` the object.
    """
    mask = labels == label
    holes = None
    if config.fill_holes is not None:
        holes = holes_of(labels, label, config.fill_holes * float(np.count_nonzero(mask)))
        mask |= holes
    error = 0.0 if config.flow_error is None else flow_error(mask, flow)
    return (holes if holes is not None and holes.any() else None), error


def crop_of(box: Box, shape: Sequence[int]) -> Box:
    """Return the box that is read for an object with this box."""
    return box.grow(MARGIN).clip(shape)


def refine_labels(labels: Uint32, fields: npt.NDArray[np.floating], config: RefineConfig) -> Uint32:
    """Return the refined labels of an image in memory; dropped labels leave no gap in the numbers.

    Args:
        labels: numbered in raster order of first pixels, from `integrate`.
        fields: the fields of these labels.

    >>> labels = np.zeros((9, 9), np.uint32)
    >>> labels[2:7, 2:7], labels[4, 4] = 1, 0
    >>> fields = np.zeros((3, 9, 9), np.float16)
    >>> refine_labels(labels, fields, RefineConfig(fill_holes=0.1))[4, 3:6]
    array([1, 1, 1], dtype=uint32)
    >>> refine_labels(labels, fields, RefineConfig(flow_error=0.4)).max()
    np.uint32(0)
    """
    if not config.active:
        return labels
    flow = np.asarray(fields[:-1], np.float16)
    filled, kept = labels.copy(), [True]
    for number, found in enumerate(ndimage.find_objects(labels.astype(np.int64)), start=1):
        if found is None:
            kept.append(False)
            continue
        box = Box(tuple(part.start for part in found), tuple(part.stop for part in found))
        crop = crop_of(box, labels.shape).slices
        holes, error = refine_object(labels[crop], flow[(slice(None), *crop)], number, config)
        kept.append(keeps(error, config))
        if holes is not None:
            filled[crop][holes] = number
    return final_numbers(np.array(kept))[filled]


def keeps(error: float, config: RefineConfig) -> bool:
    """Whether an object of this flow error is kept."""
    return config.flow_error is None or error <= config.flow_error


def final_numbers(kept: Mask) -> Uint32:
    """Return the new label of every old one: 1, 2, ... for those kept, else 0; kept[0] is the background."""
    numbers = np.cumsum(kept[1:], dtype=np.uint32) * kept[1:]
    return np.concatenate([np.zeros(1, np.uint32), numbers.astype(np.uint32)])
