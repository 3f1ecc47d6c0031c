"""Batch norm over the batch of all processes, where torch has none: on the CPU.

    share of process r ─▶ count, mean, squares about it ─ gathered ─▶ mean and variance of the whole batch ─▶ normalise

Each process normalises its share by the statistics of the whole batch, so that a network learns what one process with
that batch would teach it, whatever the number of processes and however unevenly they share. What the processes exchange
is summed in float64 and in their order: all of them have the same statistics, to the bit. Against one
process the last digits differ, as sums of float32 do when they are cut elsewhere.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from sketchscale.training.distributed import World

__all__ = ["SharedBatchNorm", "share_batch_norm"]


class SharedBatchNorm(nn.Module):
    """A replacement of a batch norm, with its parameters and running statistics under the same names.

    Args:
        alone: `BatchNorm2d` or `BatchNorm3d` with running statistics and a momentum.
    """

    def __init__(self, alone: nn.modules.batchnorm._BatchNorm, world: World) -> None:
        super().__init__()
        self.world, self.eps, self.momentum = world, alone.eps, alone.momentum or 0.0
        self.weight, self.bias = alone.weight, alone.bias
        for name, buffer in alone.named_buffers():
            self.register_buffer(name, buffer)

    @torch.compiler.disable  # type: ignore[untyped-decorator, unused-ignore]
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (n, c, ...); shape and type stay the same."""
        running = self.running_mean, self.running_var
        if not self.training:
            return functional.batch_norm(x, *running, self.weight, self.bias, eps=self.eps)  # type: ignore[arg-type]
        y, mean, squares, count = _Normalised.apply(x, self.weight, self.bias, self.eps, self.world)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for kept, now in zip(running, (mean, squares / (count - 1).clamp(min=1)), strict=True):
                kept.lerp_(now.to(kept), self.momentum)  # type: ignore[operator]
            self.num_batches_tracked.add_(1)  # type: ignore[operator]
        return y  # type: ignore[no-any-return]


class _Normalised(torch.autograd.Function):
    """Normalise the share of this process by all shares; return also their mean, squares about it and count."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float, world: World) -> Any:
        """Return the normalised share, and mean, squares and count of all processes."""
        channels, own = x.shape[1], _by_channel(x)
        mean = own.mean(1)
        squares = (own - mean[:, None]).square_().sum(1)
        sums = torch.stack([torch.full_like(mean, own.shape[1]), mean, squares]).double().cpu()
        counts, means, parts = torch.stack(world.gather(sums)).unbind(1)  # each (processes, c)
        count = counts.sum(0)
        mean = (counts * means).sum(0) / count
        squares = (parts + counts * (means - mean).square()).sum(0)
        scale = (squares / count + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, scale, count)
        ctx.world, ctx.channels = world, channels
        ctx.mark_non_differentiable(mean, squares, count)
        of_x = mean.to(weight), (squares / count).to(weight)
        return functional.batch_norm(x, *of_x, weight, bias, eps=eps), mean, squares, count

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor, *_: object) -> Any:
        """Return the gradients by x, weight and bias."""
        x, weight, mean, scale, count = ctx.saved_tensors
        own, down = _by_channel(x), _by_channel(slope)
        own = (own - mean.to(weight)[:, None]) * scale.to(weight)[:, None]
        sums = torch.stack([down.sum(1), (down * own).sum(1)])
        one, two = (torch.stack(ctx.world.gather(sums.double().cpu())).sum(0) / count).to(weight)
        change = (down - one[:, None] - own * two[:, None]) * (weight * scale.to(weight))[:, None]
        came_as = (x.shape[1], x.shape[0], *x.shape[2:])
        change = torch.empty_like(x).copy_(change.reshape(came_as).transpose(0, 1))  # the memory layout of x, too
        return change, sums[1].to(weight), sums[0].to(weight), None, None


def _by_channel(x: torch.Tensor) -> torch.Tensor:
    """Return (n, c, ...) as (c, all other axes), at least float32."""
    wide = x if x.dtype == torch.float64 else x.float()
    return wide.transpose(0, 1).reshape(x.shape[1], -1)


def share_batch_norm(network: nn.Module, world: World) -> nn.Module:
    """Replace every batch norm below a module in place, and return the module; names in its state stay the same."""
    for name, child in network.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(network, name, SharedBatchNorm(child, world))
        else:
            share_batch_norm(child, world)
    return network
