"""Models of ours as files that Cellpose 3 or Omnipose load, strictly, and that compute the same there.

What differs between the programs goes into the weights, exactly:

    widths     the programs make networks of widths (32, 64, 128, 256): narrower ones of four levels are embedded, with
               weights of 0 around them
    style      a model without one gets linear layers of 0
    channels   Cellpose makes networks of two: a model of one gets a second that weighs nothing
    flow       times 5, the length that both teach
    distance   minus the model's threshold: their threshold of 0 is ours
    outputs    Cellpose takes flow and distance; Omnipose all there are

A state dict has no place for percentiles: what the user has to set there is said in the notes.
"""

from __future__ import annotations

import io
import operator
from dataclasses import replace
from pathlib import Path

import torch

from sketchscale.errors import InputError, UnknownNameError
from sketchscale.io.stores.output_files import put_file
from sketchscale.networks import NetworkConfig
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
    _refuse_without_counterpart(config, model.config.target, kind)
    target = _target(config, kind)
    weights = {name: value.detach().cpu() for name, value in model.network.state_dict().items()}
    _convert_head(weights, model, target.outputs)
    state = {peer_name(name): value for name, value in _embedded(weights, target).items()}
    if kind == "cellpose":
        diameter = torch.tensor([model.config.diameter or 30.0])
        state |= {"diam_mean": diameter, "diam_labels": diameter.clone()}
    stream = io.BytesIO()
    torch.save(state, stream)
    put_file(path, stream.getvalue())
    return _to_set(model, target, kind)


def _refuse_without_counterpart(config: NetworkConfig, target: str, kind: str) -> None:
    if target != "flow" or config.name != "unet":
        raise InputError.of(
            found=f"a {config.name} of the target {target}",
            expected="flow and distance of a unet",
            fix="choose another model",
        )
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


def _target(config: NetworkConfig, kind: str) -> NetworkConfig:
    """The shape of the network in the file."""
    fits = len(config.widths) == len(PEER_WIDTHS) and all(map(operator.le, config.widths, PEER_WIDTHS))
    return replace(
        config,
        style=True,
        widths=PEER_WIDTHS if fits else config.widths,
        channels=max(2, config.channels) if kind == "cellpose" else config.channels,
        outputs=config.dim + 1 if kind == "cellpose" else config.outputs,
    )


def _embedded(weights: dict[str, torch.Tensor], target: NetworkConfig) -> dict[str, torch.Tensor]:
    """Weights in the first places of the larger network's; what is added gives 0 everywhere."""
    larger = {}
    for name, shape in network_shapes(target).items():
        whole = torch.ones(shape) if name.endswith("running_var") else torch.zeros(shape)
        if name in weights:
            part = weights[name]
            whole = whole.to(part.dtype)
            whole[tuple(slice(n) for n in part.shape)] = part
        larger[name] = whole
    return larger


def _convert_head(weights: dict[str, torch.Tensor], model: Model, outputs: int) -> None:
    distance = model.config.network.dim
    for name in ("head.2.weight", "head.2.bias"):
        weights[name] = weights[name][:outputs].clone()
        weights[name][:distance] *= FLOW_SCALE / model.config.flow_scale
    weights["head.2.bias"][distance] -= model.config.threshold


def _to_set(model: Model, network: NetworkConfig, kind: str) -> tuple[str, ...]:
    config, channels = model.config, network.channels
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
