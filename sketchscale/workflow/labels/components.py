"""Split masks of a single value into label images: their connected components are the objects."""

from __future__ import annotations

from dataclasses import dataclass

from sketchscale.errors import UnknownNameError
from sketchscale.geometry import tile_cover
from sketchscale.io.files.masks import Few, few_values, is_mask, join_few, require_background
from sketchscale.io.ome_zarr.label_sources import LabelSource, read_labels, source_shape
from sketchscale.objects.components import Components, join_components, plan_components, plan_few_values
from sketchscale.workflow.runner import Runner

__all__ = ["COMPONENTS", "Split", "check_components", "find_few", "split_components"]

COMPONENTS = ("auto", "always", "never")
"""Which labels to split: those with exactly one value above 0, all, or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Labels after splitting.

    Attributes:
        count: number of components where the labels were split; None where they are unchanged.
        note: for people; empty where the labels are unchanged.
    """

    labels: LabelSource
    count: int | None = None
    note: str = ""


def check_components(components: str, few: Few, where: str) -> None:
    """Refuse an unknown way of splitting, and two values of which neither is 0.

    Args:
        few: the values of the labels. where: the file, for the message.

    Raises:
        UnknownNameError, InputError: see above.
    """
    if components not in COMPONENTS:
        raise UnknownNameError.among("--components", components, COMPONENTS)
    if components != "never":
        fix = "write 0 where the background is, or take both values as objects with --components never"
        require_background(few, where, fix)


def find_few(source: LabelSource, block: tuple[int, ...], runner: Runner) -> Few:
    """Return the values of labels where there are at most two; one block shows for most labels that there are more."""
    first = tile_cover(source_shape(source), block)[0].write
    if few_values(read_labels(source, first)) is None:
        return None
    return join_few(result["few"] for result in runner.run(plan_few_values(source, block)))


def split_components(source: LabelSource, components: str, few: Few, block: tuple[int, ...], runner: Runner) -> Split:
    """Split a mask into its connected components; labels of several ids, and masks of one component, stay unchanged.

    Args:
        components: one of COMPONENTS. few: the values of the labels. block: pixels of a task.
    """
    if components == "never" or (components == "auto" and not is_mask(few)):
        return Split(labels=source)
    found: Components = join_components(source, block, runner.run(plan_components(source, block)))
    if components == "auto" and found.count <= 1:
        return Split(labels=source)
    value = f"its only value is {max(few)}; its" if few and is_mask(few) else "its"
    note = f"{value} {found.count} connected components are the objects"
    return Split(labels=found, count=found.count, note=note)
