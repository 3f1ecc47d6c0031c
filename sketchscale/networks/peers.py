"""Read weights of Cellpose 1 to 3 and of Omnipose, and make models of them.

Both programs save one network under the same 311 names (Cellpose since 2 adds two diameters), and ours is the same
network, so reading is translating names:

    downsample.down.res_down_K.proj.J             down.K.projection.J           batch norm (J = 0), convolution (1)
    downsample.down.res_down_K.conv.conv_T.J      down.K.units.T.J              batch norm (J = 0), convolution (2)
    upsample.up.res_up_K.proj.J                   up.K.projection.J
    upsample.up.res_up_K.conv.conv_0.J            up.K.units.0.J
    upsample.up.res_up_K.conv.conv_T.conv.J       up.K.units.T.J                T = 1, 2, 3
    upsample.up.res_up_K.conv.conv_T.full         up.K.styles.(T - 1)           the style's linear layer
    output.J                                      head.J

Channels, widths, outputs and dimensions follow from shapes. Three settings are not in the weights and are inferred from
the file's name, to which both programs add settings; the model's notes and provenance list them:

    program     Omnipose by "omni" in the name, by more outputs than flow and distance, or by three dimensions
    padding     "reflect" for names with "abstract", which releases of Omnipose from 1.0 write; else "zeros"
    style       "style_off" in the name: the style vector counts as 0, and the network becomes one without

Dilation and pooling, which users of Omnipose from 1.0 can change, are in neither; 1 and 2 are assumed.

Reading runs no code: torch's restricted reader accepts tensors and containers only. Shapes are compared with the
network before memory of their size is allocated.

Source: Stringer et al., Nature Methods 18 (2021) 100, and Cutler et al., Nature Methods 19 (2022) 1438, for the network
and its outputs (flow of length 5; logit of foreground, or distance).
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch

from sketchscale.errors import InputError, MissingDataError, SketchscaleError, UnknownNameError
from sketchscale.io.stores.output_files import get_file
from sketchscale.networks import NetworkConfig
from sketchscale.networks.model import Model, ModelConfig
from sketchscale.networks.unet import UNet

__all__ = [
    "FLOW_SCALE",
    "PEERS",
    "PEER_WIDTHS",
    "Checkpoint",
    "load_peer",
    "network_of",
    "network_shapes",
    "peer_name",
    "read_checkpoint",
]

PEERS = ("cellpose", "omnipose")
PADDINGS = ("zeros", "reflect")
FLOW_SCALE = 5.0
"""Length of the flow in both programs."""

PEER_WIDTHS = (32, 64, 128, 256)
"""Widths of the networks that both programs make."""

Weights = dict[str, torch.Tensor]

_NAMES = (
    (re.compile(r"^down\.(\d+)\.projection\."), r"downsample.down.res_down_\1.proj."),
    (re.compile(r"^down\.(\d+)\.units\.(\d)\."), r"downsample.down.res_down_\1.conv.conv_\2."),
    (re.compile(r"^up\.(\d+)\.projection\."), r"upsample.up.res_up_\1.proj."),
    (re.compile(r"^up\.(\d+)\.units\.0\."), r"upsample.up.res_up_\1.conv.conv_0."),
    (re.compile(r"^up\.(\d+)\.units\.([123])\."), r"upsample.up.res_up_\1.conv.conv_\2.conv."),
    (re.compile(r"^up\.(\d+)\.styles\.0\."), r"upsample.up.res_up_\1.conv.conv_1.full."),
    (re.compile(r"^up\.(\d+)\.styles\.1\."), r"upsample.up.res_up_\1.conv.conv_2.full."),
    (re.compile(r"^up\.(\d+)\.styles\.2\."), r"upsample.up.res_up_\1.conv.conv_3.full."),
    (re.compile(r"^head\."), "output."),
)
_DIAMETERS = ("diam_mean", "diam_labels")
_EXPECTED = "a file that Cellpose 1 to 3 or Omnipose saved"


def peer_name(name: str) -> str:
    """Return the name of a weight in Cellpose and Omnipose.

    >>> peer_name("up.3.styles.0.weight")
    'upsample.up.res_up_3.conv.conv_1.full.weight'
    """
    for pattern, theirs in _NAMES:
        name, found = pattern.subn(theirs, name)
        if found:
            break
    return name


def network_shapes(config: NetworkConfig) -> dict[str, torch.Size]:
    """Return names and shapes of a network's weights, without allocating them."""
    with torch.device("meta"):
        return {name: value.shape for name, value in UNet(config).state_dict().items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The checked content of a file of Cellpose or Omnipose.

    Attributes:
        weights: by the names of `UNet`, float32, for a network of shape `network` with style and padding "zeros".
        diameters: `diam_mean` and `diam_labels`, where the file has them.
        sha256: of the file.
    """

    weights: Weights
    network: NetworkConfig
    diameters: Mapping[str, float]
    sha256: str


def load_peer(path: str | Path, *, padding: str | None = None, kind: str | None = None) -> Model:
    """Load a model from a file of Cellpose or Omnipose; its network computes the same as in that program.

    Args:
        padding: of the convolutions; None infers it (see the module).
        kind: "cellpose" or "omnipose"; None infers it.

    Returns:
        A model with the `sha256` of the file. A network of two channels takes images of one; the second is then 0.

    Raises:
        MissingDataError: there is no such file.
        InputError: another kind of file, an unsupported network (the message names it), or no output for distance.
        UnknownNameError: an unknown `padding` or `kind`.
    """
    if kind is not None and kind not in PEERS:
        raise UnknownNameError.among("kind of weights", kind, PEERS)
    if padding is not None and padding not in PADDINGS:
        raise UnknownNameError.among("padding", padding, PADDINGS)
    checkpoint = read_checkpoint(path)
    name = Path(path).name.lower()
    config, weights = checkpoint.network, checkpoint.weights
    if config.outputs <= config.dim:
        raise _refusal(path, f"a network with {config.outputs} outputs", "flow and distance, 3 outputs or more")
    omnipose = "omni" in name or config.outputs > config.dim + 1 or config.dim == 3
    program = kind or ("omnipose" if omnipose else "cellpose")
    chosen: Any = padding or ("reflect" if program == "omnipose" and "abstract" in name else "zeros")
    style = "style_off" not in name
    if not style:
        weights = _without_style(weights)
    config = replace(config, style=style, padding=chosen)
    assumed = [
        f"{program}: {'as asked' if kind else 'by its outputs and file name'}",
        f"padding {chosen}: {'as asked' if padding else 'by the file name'}",
    ]
    return Model(
        network=network_of(config, weights),
        config=_settings(program, config, checkpoint.diameters, name, assumed),
        provenance={
            "source": {"program": program, "file": Path(path).name, "sha256": checkpoint.sha256},
            "assumed": assumed,
            **checkpoint.diameters,
        },
        sha256=checkpoint.sha256,
    )


def network_of(config: NetworkConfig, weights: Weights) -> UNet:
    """Return a network with these weights, which fit it, ready to predict."""
    with torch.device("meta"):
        network = UNet(config)
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)


def _settings(
    program: str, network: NetworkConfig, diameters: Mapping[str, float], name: str, notes: list[str]
) -> ModelConfig:
    """Return the default settings of either program.

    Tiles have 224 px as in both programs (64 in volumes, for memory), because the style vector depends on them. No
    fragments are joined where the third output is a logit, because its height is not related to size.
    """
    cellpose = program == "cellpose"
    return ModelConfig(
        network=network,
        low=1.0 if cellpose else 0.01,
        high=99.0 if cellpose else 99.99,
        threshold=0.0,
        min_size=15,
        link_radius=2,
        prominence=-8.0 if cellpose else -0.25,
        tile=224 if network.dim == 2 else 64,
        overlap=32 if network.dim == 2 else 16,
        diameter=diameters.get("diam_mean", 17.0 if "nuclei" in name else 30.0),
        flow_scale=FLOW_SCALE,
        logit=cellpose,
        absent_channels=1 if network.channels == 2 else 0,
        notes="; ".join(notes),
    )


def _without_style(weights: Weights) -> Weights:
    """Return the weights for a style vector of 0: batch norm absorbs the biases of the linear layers."""
    plain = {name: value for name, value in weights.items() if ".styles." not in name}
    for name in weights:
        found = re.fullmatch(r"up\.(\d+)\.styles\.(\d)\.bias", name)
        if found:
            mean = f"up.{found[1]}.units.{int(found[2]) + 1}.0.running_mean"
            plain[mean] = plain[mean] - weights[name]
    return plain


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a file and determine its network.

    Raises:
        MissingDataError: there is no such file.
        InputError: see `load_peer`.
    """
    try:
        data = get_file(path)
    except SketchscaleError:
        raise
    except OSError as error:
        raise MissingDataError(f"{path}: {error.strerror}; expected: {_EXPECTED}; to fix: check the path") from error
    tensors = _tensors(path, _unpickled(path, data))
    _refuse_others(path, tensors)
    diameters = {k: round(float(tensors.pop(k).float().mean()), 4) for k in _DIAMETERS if k in tensors}
    config = _network(path, tensors)
    weights = _translated(path, tensors, config)
    usable = {name: value for name, value in diameters.items() if 0 < value < float("inf")}
    return Checkpoint(weights=weights, network=config, diameters=usable, sha256=hashlib.sha256(data).hexdigest())


def _refusal(path: str | Path, found: str, expected: str = _EXPECTED, fix: str = "choose another file") -> InputError:
    return InputError.of(found=f"{path}: {found}", expected=expected, fix=fix)


def _unpickled(path: str | Path, data: bytes) -> Any:
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # hostile or damaged, the reader may fail in any way; nothing was run
        raise _refusal(path, f"not a file of tensors only, not read ({type(error).__name__})") from error


def _tensors(path: str | Path, content: Any) -> Weights:
    """Return the mapping of names to tensors, without the wrappers that trainers add."""
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise _refusal(path, "no mapping of names to tensors")
    tensors = {str(name).removeprefix("module."): cast(torch.Tensor, value) for name, value in content.items()}
    for name, value in tensors.items():
        dense = value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized
        if not dense or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise _refusal(path, f"{name[:60]!r} is no plain tensor of its own")
    return tensors


def _refuse_others(path: str | Path, names: Weights) -> None:
    """Refuse other networks, and name those that users are likely to have."""

    def any_of(start: str) -> bool:
        return any(name.startswith(start) for name in names)

    if "W2" in names or (any_of("encoder.") and any_of("out.")):
        raise _refusal(path, "Cellpose 4 (SAM), a vision transformer")
    if any_of("downsample.down.conv_down_"):
        raise _refusal(path, "a Cellpose network without residual blocks (residual_off)")
    if not any_of("downsample.") and (any_of("net.") or any_of("encoder.")):
        raise _refusal(path, "the transformer of Cellpose 3")
    if not any_of("downsample.down.res_down_0."):
        shown = ", ".join(sorted(names)[:2])[:80] or "nothing"
        raise _refusal(path, f"weights of another network ({shown} ...)")


def _network(path: str | Path, tensors: Weights) -> NetworkConfig:
    """Infer channels, widths, outputs and dimensions from the shapes of a few convolutions."""

    def shape(name: str) -> tuple[int, ...]:
        return tuple(tensors[name].shape) if name in tensors else ()

    levels = 0
    while f"downsample.down.res_down_{levels}.conv.conv_0.2.weight" in tensors:
        levels += 1
    convolutions = [shape(f"downsample.down.res_down_{k}.conv.conv_0.2.weight") for k in range(levels)]
    head = shape("output.2.weight")
    ranks = {len(s) for s in (*convolutions, head)}
    if ranks not in ({4}, {5}):
        raise _refusal(path, "convolutions of neither 2 nor 3 dimensions")
    dim: Literal[2, 3] = 2 if ranks == {4} else 3
    if shape("upsample.up.res_up_0.conv.conv_1.full.weight")[:1] == (2 * convolutions[0][0],):
        raise _refusal(path, "a Cellpose network with concatenation (concatenation_on)")
    try:
        return NetworkConfig(
            channels=convolutions[0][1],
            widths=tuple(s[0] for s in convolutions),
            outputs=head[0],
            style=True,
            dim=dim,
        )
    except InputError as error:
        raise _refusal(path, f"{str(error).partition(';')[0]}") from error


def _translated(path: str | Path, tensors: Weights, config: NetworkConfig) -> Weights:
    """Return the weights by the names of `UNet`, after comparing every name and shape."""
    wanted = {peer_name(name): (name, shape) for name, shape in network_shapes(config).items()}
    shapes = {(theirs, shape) for theirs, (_, shape) in wanted.items()}
    wrong = sorted({name for name, _ in shapes ^ {(name, value.shape) for name, value in tensors.items()}})
    if wrong:
        raise _refusal(path, f"{len(wrong)} weights do not fit the network of its other weights, first {wrong[0][:80]}")
    weights = {}
    for theirs, (name, _) in wanted.items():
        counter = name.endswith("num_batches_tracked")
        if counter == tensors[theirs].is_floating_point() or tensors[theirs].is_complex():
            raise _refusal(path, f"{theirs} is of type {tensors[theirs].dtype}")
        weights[name] = tensors[theirs].to(torch.int64 if counter else torch.float32).clone().contiguous()
    if not all(bool(torch.isfinite(value).all()) for value in weights.values()):
        raise _refusal(path, "NaN or Inf among the weights")
    return weights
