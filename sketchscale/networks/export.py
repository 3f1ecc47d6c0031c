"""Models of ours as files that Cellpose 3 or Omnipose load, strictly, and that compute the same there.

What differs between the programs goes into the first and the last convolution, exactly:

    style      a model without one gets linear layers of 0
    channels   Cellpose makes networks of two: a model of one gets a second that weighs nothing
    flow       times 5, the length that both teach
    distance   minus the model's threshold: their threshold of 0 is ours
    outputs    Cellpose takes flow and distance; Omnipose all there are

A state dict has no place for percentiles: what the user has to set there is said in the notes.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import torch

from sketchscale.errors import InputError, OutputError, UnknownNameError
from sketchscale.networks import NetworkConfig
from sketchscale.networks.adapt import resize_channels
from sketchscale.networks.checkpoint import replace_file
from sketchscale.networks.model import Model
from sketchscale.networks.peers import FLOW_SCALE, PEER_WIDTHS, PEERS, network_shapes, peer_name

__all__ = ["save_peer"]


def save_peer(model: Model, path: str | Path, *, kind: str) -> tuple[str, ...]:
    """Write a model's weights as Cellpose 1 to 3, or Omnipose, would save them.

    Args:
        kind: "cellpose" or "omnipose".

    Returns:
        What to set in that program, a line each.

    Raises:
        UnknownNameError: `kind` is neither.
        InputError: the network has no counterpart there: volumes or mirrored padding for Cellpose.
        OutputError: the file can't be written.
    """
    if kind not in PEERS:
        raise UnknownNameError.among("kind of weights", kind, PEERS)
    config = model.config.network
    _refuse_without_counterpart(config, kind)
    weights = {name: value.detach().cpu().clone() for name, value in model.network.state_dict().items()}
    if kind == "cellpose" and config.channels == 1:
        resize_channels(weights, 1, 2)
    _convert_head(weights, model, config.dim + 1 if kind == "cellpose" else config.outputs)
    for name, shape in network_shapes(replace(config, style=True)).items():
        weights.setdefault(name, torch.zeros(shape))
    state = {peer_name(name): value for name, value in weights.items()}
    if kind == "cellpose":
        diameter = torch.tensor([model.config.diameter or 30.0])
        state |= {"diam_mean": diameter, "diam_labels": diameter.clone()}
    _write(state, Path(path))
    return _to_set(model, kind)


def _refuse_without_counterpart(config: NetworkConfig, kind: str) -> None:
    if config.outputs <= config.dim:
        raise InputError.of(
            found=f"a network with {config.outputs} outputs", expected="flow and distance", fix="choose another model"
        )
    if kind == "cellpose" and (config.dim == 3 or config.padding != "zeros"):
        raise InputError.of(
            found=f"a network of {config.dim} dimensions with padding {config.padding!r}",
            expected="2 and 'zeros', which Cellpose has",
            fix="--to omnipose",
        )


def _convert_head(weights: dict[str, torch.Tensor], model: Model, outputs: int) -> None:
    distance = model.config.network.dim
    for name in ("head.2.weight", "head.2.bias"):
        weights[name] = weights[name][:outputs].clone()
        weights[name][:distance] *= FLOW_SCALE / model.config.flow_scale
    weights["head.2.bias"][distance] -= model.config.threshold


def _write(state: dict[str, torch.Tensor], path: Path) -> None:
    stream = io.BytesIO()
    torch.save(state, stream)
    try:
        replace_file(path, stream.getvalue())
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; expected: a writable folder; to fix: another --out"
        ) from error


def _to_set(model: Model, kind: str) -> tuple[str, ...]:
    config, network = model.config, model.config.network
    channels = max(2, network.channels) if kind == "cellpose" else network.channels
    if kind == "cellpose":
        lines = [f"normalize={{'percentile': [{config.low:g}, {config.high:g}]}}", "cellprob_threshold=0"]
        lines += [f"nchan={channels}"] if channels > 2 else []
    else:
        release = "before 1.0" if network.padding == "zeros" else "from 1.0 on"
        classes = network.outputs - network.dim + 1
        lines = [
            f"Omnipose {release}: the other releases pad convolutions otherwise",
            f"nchan={channels}, dim={network.dim}, nclasses={network.outputs} (from 1.0 on: {classes})",
            f"percentiles {config.low:g} and {config.high:g}, not 0.01 and 99.99; mask_threshold=0",
        ]
    if network.widths != PEER_WIDTHS:
        lines.append(
            f"CPnet(nbase={[channels, *network.widths]}, ...): the program's own loader makes {PEER_WIDTHS} only"
        )
    return tuple(lines)
