"""Import annotations and networks from files of SVETLANA; no code in them is run (see `pickles`).

    Svetlana/labels   {image_path, labels_path, regionprops: [{centroid, coords, label}], labels_list, patch_size}
                      one list of objects, or one list per image                      ──▶ marks: a point on each object
    training_N.pth    {model: the whole network, patch_size, norm_type, ...}          ──▶ a classifier

Classes have no names in these files. They are named after the key that was pressed, `class_1` to `class_9`, unless
names are given. Older versions of SVETLANA store the key's number, newer ones one less: a file with a 0 is newer.

SVETLANA's networks end in a softmax and are trained with a second one in the loss; ours end before the softmax, which
is applied once. With the same weights the probabilities are equal; only further training differs, as its loss contains
one softmax. A network for grey images has three equal channels in SVETLANA; the three kernels for them are summed, so
that ours reads a single channel. Patches are cut at the same place; "min-max" and "max" normalise all channels of a
patch together, including zeros outside the image.

Source: SVETLANA (Cazorla et al., Scientific Reports 14 (2024) 11604), files of the napari plugin up to 1.6.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError, UnknownNameError
from sketchscale.objects.classifiers.base import Classifier, ClassifierConfig, NetworkOptions, create_network
from sketchscale.objects.classifiers.files import classifier_digest
from sketchscale.objects.classifiers.pickles import Record
from sketchscale.objects.classifiers.preparation import NORMALIZATIONS, PatchOptions

__all__ = ["SvetlanaMark", "is_labels", "svetlana_classifier", "svetlana_marks"]

Weights = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SvetlanaMark:
    """An annotated object: image (its file name), label in SVETLANA's mask, a point on it ([z,] y, x), class."""

    image: str
    label: int
    point: tuple[float, ...]
    name: str


def is_labels(content: Any) -> bool:
    """Return whether the content of a file is annotations."""
    return isinstance(content, Mapping) and "labels_list" in content and "regionprops" in content


def svetlana_marks(path: str | Path, content: Any, classes: Sequence[str] = ()) -> list[SvetlanaMark]:
    """Return the annotated objects of a labels file.

    Args:
        path: for messages.
        content: of `read_pickle`.
        classes: name of each class, in the order of the keys; `class_1`, ... if empty.

    Raises:
        InputError: it is not such a file, or there are fewer names than classes.
    """
    try:
        found = list(_objects(content))
        keys = [int(key) for _, _, key in found]
        first = 0 if 0 in keys else 1
        marks = []
        for (image, each, _), key in zip(found, keys, strict=True):
            name = _class_name(path, key - first, classes)
            point = np.array([float(value) for value in each["centroid"]])
            if (coords := each.get("coords")) is not None and len(coords):
                # the centroid may lie outside the object: take the first of its pixels that are nearest to it
                pixels = np.asarray(coords, np.float64)
                point = pixels[((pixels - point) ** 2).sum(axis=1).argmin()]
            marks.append(SvetlanaMark(image=image, label=int(each["label"]), point=tuple(point.tolist()), name=name))
        return marks
    except (TypeError, KeyError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise _refusal(path, f"not annotations as SVETLANA saves them ({type(error).__name__})") from error


def _refusal(
    path: str | Path, found: str, expected: str = "a file of SVETLANA", fix: str = "choose another file"
) -> Any:
    return InputError.of(found=f"{path}: {found}", expected=expected, fix=fix)


def _objects(content: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], Any]]:
    """Yield (image, object, key) of every annotation."""
    props, keys, images = content["regionprops"], content["labels_list"], content.get("image_path", "")
    nested = bool(props) and isinstance(props[0], list | tuple)
    groups = zip(props, keys, images, strict=True) if nested else [(props, keys, images)]
    for objects, pressed, image in groups:
        name = image[0] if isinstance(image, list | tuple) and image else image
        for each, key in zip(objects, pressed, strict=True):
            yield PureWindowsPath(str(name or "")).name, each, key


def _class_name(path: str | Path, place: int, classes: Sequence[str]) -> str:
    if not classes:
        return f"class_{place + 1}"
    if not 0 <= place < len(classes):
        raise _refusal(path, f"class {place + 1}", f"{len(classes)} classes, as named", "name every class")
    return classes[place]


def svetlana_classifier(
    path: str | Path,
    content: Any,
    *,
    channels: Sequence[str],
    classes: Sequence[str] = (),
    side: int | None = None,
    normalization: str | None = None,
) -> Classifier:
    """Return a classifier with the weights of a network of SVETLANA: a light one, or ResNet-18.

    Args:
        path: for messages and provenance.
        content: of `read_pickle`.
        channels: names of the channels of its images; a single one for grey.
        classes: a name for each output, or for each but the first, which old versions have and never use.
        side: of the patches, px; None takes it from the file.
        normalization: in NORMALIZATIONS; None takes it from the file, or "min-max".

    Raises:
        InputError: it is another network, channels or classes do not fit, or the patch size is missing.
        UnknownNameError: the normalization is unknown.
    """
    if normalization is not None and normalization not in NORMALIZATIONS:
        raise UnknownNameError.among("normalization", normalization, NORMALIZATIONS)
    about = content if isinstance(content, Mapping) else {}
    theirs, notes = _named(path, about.get("model", content)), []
    weights, kind, network, dim = _translated(path, theirs)
    first = "conv1.weight" if kind == "resnet18" else "cnn_layers.0.weight"
    seen = weights[first].shape[1] - 1
    if seen == 3 and len(channels) == 1:
        grey = weights[first][:, :3].sum(axis=1, keepdims=True)
        weights[first] = np.concatenate([grey, weights[first][:, 3:]], axis=1)
    elif seen != len(channels):
        fix = "name each channel with --channel"
        raise _refusal(path, f"a network for {seen} channels", f"{len(channels)}, as named", fix)
    last = "fc.weight" if kind == "resnet18" else "fc.0.weight"
    bias = last.removesuffix("weight") + "bias"
    if len(classes) == len(weights[last]) - 1:
        weights[last], weights[bias] = weights[last][1:], weights[bias][1:]
        notes.append("first output left out, it stands for no class")
    norm = str(about.get("norm_type", "min")).lower()
    stored = "min-max" if "min" in norm else "max" if "max" in norm else "none"
    names = tuple(classes) or tuple(f"class_{i + 1}" for i in range(len(weights[last])))
    if len(names) != len(weights[last]):
        raise _refusal(
            path, f"a network of {len(weights[last])} classes", f"{len(names)}, as named", "name every class"
        )
    config = ClassifierConfig(
        kind=kind,
        channels=tuple(channels),
        classes=names,
        side=_side(path, about, side),
        ranges=((0.0, 1.0),) * len(channels),
        dim=dim,
        network=network,
        patches=PatchOptions(normalization=normalization or stored),
    )
    _check(path, config, weights)
    source = {"program": "svetlana", "file": Path(path).name, "notes": notes}
    return Classifier(
        config=config, weights=weights, provenance={"source": source}, sha256=classifier_digest(config, weights)
    )


def _named(path: str | Path, model: Any) -> Weights:
    """Return arrays by name, from a whole network or from its state."""
    found: Weights = {}

    def walk(module: Any, prefix: str, depth: int) -> None:
        state = module.state if isinstance(module, Record) else None
        if not isinstance(state, Mapping) or depth > 20:
            raise _refusal(path, "no network")
        for part in ("_parameters", "_buffers"):
            found.update({f"{prefix}{k}": v for k, v in (state.get(part) or {}).items() if isinstance(v, np.ndarray)})
        for name, inner in (state.get("_modules") or {}).items():
            walk(inner, f"{prefix}{name}.", depth + 1)

    if isinstance(model, Mapping):
        found = {str(name): value for name, value in model.items() if isinstance(value, np.ndarray)}
    else:
        walk(model, "", 0)
    for wrapper in ("module.", "0."):
        if found and all(name.startswith(wrapper) for name in found):
            found = {name.removeprefix(wrapper): value for name, value in found.items()}
    return found


def _translated(path: str | Path, theirs: Weights) -> tuple[Weights, str, NetworkOptions, Literal[2, 3]]:
    """Return the weights under our names, the kind of classifier, the size of its network, its dimensions."""
    if "layer1.0.conv1.weight" in theirs and "layer1.0.conv3.weight" not in theirs and "conv1.weight" in theirs:
        network = NetworkOptions(width=theirs["conv1.weight"].shape[0], stem="large")
        return {re.sub(r"^fc\.0\.", "fc.", name): v for name, v in theirs.items()}, "resnet18", network, 2
    solid = "conv1.weight" in theirs
    if solid:  # in 3-D the first layer has special names; ours counts it with the others
        for old, new in (
            (r"cnn_layers\.(\d+)\.", lambda found: f"cnn_layers.{int(found[1]) + 4}."),
            (r"conv1\.", "cnn_layers.0."),
            (r"bn1\.", "cnn_layers.2."),
        ):
            theirs = {re.sub(f"^{old}", new, name): values for name, values in theirs.items()}
    first = theirs.get("cnn_layers.0.weight")
    depth = sum(bool(re.fullmatch(r"cnn_layers\.\d+\.running_mean", name)) for name in theirs)
    if first is None or first.ndim != (5 if solid else 4) or "fc.0.weight" not in theirs:
        shown = ", ".join(sorted(theirs)[:2])[:80] or "nothing"
        raise _refusal(path, f"another network ({shown} ...)", "a light network of SVETLANA, or its ResNet18")
    size = NetworkOptions(depth=depth, kernel=3 if solid else first.shape[-1], width=first.shape[0])
    return theirs, "light", size, 3 if solid else 2


def _side(path: str | Path, about: Mapping[str, Any], side: int | None) -> int:
    stored = about.get("patch_size")
    if side is None and not isinstance(stored, int):
        raise _refusal(path, "no patch size", "the side of the patches in pixels", "give it with --side")
    return side if side is not None else int(stored) // 2 * 2  # type: ignore[arg-type]


def _check(path: str | Path, config: ClassifierConfig, weights: Weights) -> None:
    """Convert the types of the weights; refuse names and shapes that are not the network's, and numbers not finite."""
    try:
        wanted = create_network(config).state_dict()
    except InputError as error:
        raise _refusal(path, str(error).partition(";")[0]) from error
    wrong = sorted(
        name
        for name in {*wanted, *weights}
        if name not in wanted or name not in weights or tuple(wanted[name].shape) != weights[name].shape
    )
    if wrong:
        raise _refusal(path, f"{len(wrong)} weights do not fit its own network, first {wrong[0][:80]}")
    for name, values in weights.items():
        weights[name] = values.astype(np.int64 if name.endswith("num_batches_tracked") else np.float32)
        if not np.isfinite(weights[name]).all():
            raise _refusal(path, "NaN or Inf among the weights")
