"""The network of Cellpose and Omnipose, as a plain function of its state dict.

Written from the description of the network (Stringer et al. 2021, figure 1 and methods), name by name, for any number
of levels, in two or three dimensions; and random state dicts with the names and shapes of the saved files. Computed in
float64, so that what is left of a difference is not rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

State = dict[str, torch.Tensor]


def forward(state: State, x: torch.Tensor, *, padding: str = "zeros", style_on: bool = True) -> torch.Tensor:
    """(n, channels, y, x) to (n, outputs, y, x), or with z."""
    x, dim = x.double(), x.ndim - 2
    state = {name: value.double() for name, value in state.items()}
    convolve = {2: functional.conv2d, 3: functional.conv3d}[dim]
    pool = {2: functional.max_pool2d, 3: functional.max_pool3d}[dim]
    levels = sum(name.endswith("proj.0.weight") and name.startswith("down") for name in state)

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{k}"].reshape(1, -1, *(1,) * dim) for k in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias

    def unit(name: str, x: torch.Tensor, activate: bool = True) -> torch.Tensor:
        x = norm(f"{name}.0", x)
        kernel, bias = (state[f"{name}.{2 if activate else 1}.{k}"] for k in ("weight", "bias"))
        x = torch.relu(x) if activate else x
        if kernel.shape[-1] == 3:
            mode = "constant" if padding == "zeros" else "reflect"
            x = functional.pad(x, (1, 1) * dim, mode=mode)
        return convolve(x, kernel, bias)

    skips = []
    for k in range(levels):
        name = f"downsample.down.res_down_{k}"
        x = pool(x, 2) if k else x
        y = unit(f"{name}.proj", x, activate=False) + unit(f"{name}.conv.conv_1", unit(f"{name}.conv.conv_0", x))
        x = y + unit(f"{name}.conv.conv_3", unit(f"{name}.conv.conv_2", y))
        skips.append(x)
    style = x.mean(dim=tuple(range(2, 2 + dim)))
    style = style / (style**2).sum(dim=1, keepdim=True).sqrt()
    style = style if style_on else style * 0

    def styled(name: str, x: torch.Tensor) -> torch.Tensor:
        entry = style @ state[f"{name}.full.weight"].T + state[f"{name}.full.bias"]
        return unit(f"{name}.conv", x + entry.reshape(*entry.shape, *(1,) * dim))

    for k in reversed(range(levels)):
        name = f"upsample.up.res_up_{k}"
        if k < levels - 1:
            for axis in range(2, 2 + dim):
                x = x.repeat_interleave(2, dim=axis)
        into = unit(f"{name}.conv.conv_0", x) + skips[k]
        y = unit(f"{name}.proj", x, activate=False) + styled(f"{name}.conv.conv_1", into)
        x = y + styled(f"{name}.conv.conv_3", styled(f"{name}.conv.conv_2", y))
    return unit("output", x)


def random_state(
    *,
    channels: int = 2,
    widths: Sequence[int] = (4, 6, 8),
    outputs: int = 3,
    dim: int = 2,
    diameters: bool = True,
    seed: int = 0,
) -> State:
    """A file's content: names and shapes as the programs write them, values as after training."""
    generator = torch.Generator().manual_seed(seed)
    state: State = {}

    def norm(name: str, n: int) -> None:
        state[f"{name}.weight"] = 0.5 + torch.rand(n, generator=generator)
        state[f"{name}.bias"] = 0.2 * torch.randn(n, generator=generator)
        state[f"{name}.running_mean"] = 0.2 * torch.randn(n, generator=generator)
        state[f"{name}.running_var"] = 0.5 + torch.rand(n, generator=generator)
        state[f"{name}.num_batches_tracked"] = torch.tensor(100)

    def layer(name: str, a: int, b: int, *size: int) -> None:
        fan = a * torch.Size(size).numel()
        state[f"{name}.weight"] = torch.randn(b, a, *size, generator=generator) / fan**0.5
        state[f"{name}.bias"] = 0.2 * torch.randn(b, generator=generator)

    for k, (a, b) in enumerate(zip((channels, *widths), widths, strict=False)):
        name = f"downsample.down.res_down_{k}"
        for t in range(4):
            norm(f"{name}.conv.conv_{t}.0", a if t == 0 else b)
            layer(f"{name}.conv.conv_{t}.2", a if t == 0 else b, b, *(3,) * dim)
        norm(f"{name}.proj.0", a)
        layer(f"{name}.proj.1", a, b, *(1,) * dim)
    for k, (a, b) in enumerate(zip((*widths[1:], widths[-1]), widths, strict=True)):
        name = f"upsample.up.res_up_{k}"
        norm(f"{name}.conv.conv_0.0", a)
        layer(f"{name}.conv.conv_0.2", a, b, *(3,) * dim)
        for t in (1, 2, 3):
            norm(f"{name}.conv.conv_{t}.conv.0", b)
            layer(f"{name}.conv.conv_{t}.conv.2", b, b, *(3,) * dim)
            layer(f"{name}.conv.conv_{t}.full", widths[-1], b)
        norm(f"{name}.proj.0", a)
        layer(f"{name}.proj.1", a, b, *(1,) * dim)
    norm("output.0", widths[0])
    layer("output.2", widths[0], outputs, *(1,) * dim)
    if diameters:
        state |= {"diam_mean": torch.tensor([30.0]), "diam_labels": torch.tensor([27.5])}
    return state
