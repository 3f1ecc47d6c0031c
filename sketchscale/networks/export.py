"""Save models as files that Cellpose 3 or Omnipose load, strictly, and that compute the same there.

Differences between the programs are absorbed in the weights, exactly:

    widths     the programs make networks of widths (32, 64, 128, 256): narrower ones of four levels are padded with
               weights of 0
    style      a model without one gets linear layers of 0
    channels   Cellpose makes networks of two: a model of one gets a second with weights of 0
    flow       times 5, the length in both programs
    distance   minus the model's threshold, because both programs have threshold 0
    outputs    Cellpose gets flow and distance; Omnipose all outputs

A state dict has no place for percentiles: the notes list what the user has to set in the program.
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
    """Write a model's weights in the format of Cellpose 1 to 3, or of Omnipose.

    Args:
        kind: "cellpose" or "omnipose".

    Returns:
        The settings to make in that program, a line each.

    Raises:
        UnknownNameError: another kind.
        InputError: the network has no counterpart there: volumes or mirrored padding for Cellpose.
        OutputError: the file can't be written.
    """
    if kind not in PEERS:
        raise UnknownNameError.among("kind of weights", kind, PEERS)
    config = model.config.network
    _refuse_without_counterpart(config, model.config.target, kind)
    fits = len(config.widths) == len(PEER_WIDTHS) and all(map(operator.le, config.widths, PEER_WIDTHS))
    target = replace(
        config,
        style=True,
        widths=PEER_WIDTHS if fits else config.widths,
        channels=max(2, config.channels) if kind == "cellpose" else config.channels,
        outputs=config.dim + 1 if kind == "cellpose" else config.outputs,
    )
    weights = {name: value.detach().cpu() for name, value in model.network.state_dict().items()}
    for name in ("head.2.weight", "head.2.bias"):
        weights[name] = weights[name][: target.outputs].clone()
        weights[name][: config.dim] *= FLOW_SCALE / model.config.flow_scale
    weights["head.2.bias"][config.dim] -= model.config.threshold
    state = {peer_name(name): value for name, value in _embedded(weights, target).items()}
    if kind == "cellpose":
        diameter = torch.tensor([model.config.diameter or 30.0])
        state |= {"diam_mean": diameter, "diam_labels": diameter.clone()}
    stream = io.BytesIO()
    torch.save(state, stream)
    put_file(path, stream.getvalue())
    return _settings_to_make(model, target, kind)


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


def _embedded(weights: dict[str, torch.Tensor], target: NetworkConfig) -> dict[str, torch.Tensor]:
    """Return the weights padded to the shapes of the larger network, whose added features are 0 everywhere."""
    larger = {}
    for name, shape in network_shapes(target).items():
        whole = torch.ones(shape) if name.endswith("running_var") else torch.zeros(shape)
        if name in weights:
            part = weights[name]
            whole = whole.to(part.dtype)
            whole[tuple(slice(n) for n in part.shape)] = part
        larger[name] = whole
    return larger


def _settings_to_make(model: Model, network: NetworkConfig, kind: str) -> tuple[str, ...]:
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
