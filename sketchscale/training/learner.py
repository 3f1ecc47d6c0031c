"""The training step of one network: forward, loss, backward, clip, update, running mean.

    batch ─ network ─ loss ─ gradients, averaged over processes ─ clip ─ optimiser ─▶ weights ─▶ running mean of weights

Guarantees:
  * a step that fails leaves weights, running statistics and optimiser as they were;
  * processes that train together hold the same weights and running statistics, to the bit.

Batch norm of several processes takes its statistics from the whole batch: on CUDA by torch's SyncBatchNorm, else by
batch_norm.py. So a step is that of one process with the same batch, up to the order in which float32 sums are taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from sketchscale.losses import BatchTargets, find_loss
from sketchscale.networks import create_network
from sketchscale.networks.precision import autocast
from sketchscale.training.batch_norm import share_batch_norm
from sketchscale.training.config import OPTIMIZERS, TrainingConfig
from sketchscale.training.distributed import World
from sketchscale.training.frame import NotANumberError
from sketchscale.training.prefetch import Batch

__all__ = ["Learner", "join_batch_norm", "optimizer_tensors", "part", "take_optimizer"]

Weights = dict[str, torch.Tensor]


class Learner:
    """A network, its optimiser and the running mean of its weights; see the module.

    Args:
        network: trained in place, on `device`.
        start: the threshold, px, of the model whose weights the network has, for losses that keep what it knows; None
            from random weights.
    """

    def __init__(
        self,
        network: nn.Module,
        config: TrainingConfig,
        device: torch.device,
        world: World,
        *,
        start: float | None = None,
    ) -> None:
        self.config, self.device, self.world = config, device, world
        network = network.to(device).train()
        layout = torch.channels_last if config.network.dim == 2 else torch.channels_last_3d
        network.to(memory_format=layout)  # type: ignore[call-overload]
        self.network = network = join_batch_norm(network, device, world)
        compiled = config.compile == "on" or (config.compile == "auto" and device.type == "cuda")
        self.forward = cast(Callable[..., torch.Tensor], torch.compile(network) if compiled else network)
        self.loss = find_loss(config.loss.name)
        self._start = None
        if start is not None and find_loss(config.loss.name).interior:
            self._start = self.still({name: value.clone() for name, value in network.state_dict().items()}), start
        self.optimizer = _optimizer(network, config, device)
        self.scaler = torch.amp.GradScaler("cuda", enabled=config.precision == "float16")
        self._remember(network)

    def _remember(self, network: nn.Module) -> None:
        """Make lists of tensors once: walking the modules in every step would take longer than the sums."""
        self._parameters = list(network.parameters())
        self._buffers = list(network.buffers())
        self._before = [b.clone() for b in self._buffers]
        self._live = network.state_dict()
        self.average: Weights = {k: v.detach().clone() for k, v in self._live.items()}
        floats = [k for k, v in self._live.items() if v.is_floating_point()]
        self._averaged = [self.average[k] for k in floats], [self._live[k] for k in floats]
        others = [k for k in self._live if k not in set(floats)]
        self._copied = [self.average[k] for k in others], [self._live[k] for k in others]

    def learn(self, batch: Batch, rate: float) -> float:
        """Take a step on a batch that is on the device; return the loss before it, over all processes.

        Raises:
            NotANumberError: loss or gradient is not a number; nothing was changed.
        """
        image, targets = batch
        _copy(self._before, self._buffers)
        with autocast(self.device.type, self.config.precision):
            prediction = self.forward(image)
        loss = self.loss(prediction, self._with_start(image, targets), self.config.loss)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        value, norm = self._clip(loss.detach().float())
        if not math.isfinite(value) or (not math.isfinite(norm) and not self.scaler.is_enabled()):
            _copy(self._buffers, self._before)
            raise NotANumberError(
                f"the loss is {value}" if not math.isfinite(value) else f"the gradient's norm is {norm}"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value

    def _with_start(self, image: torch.Tensor, targets: BatchTargets) -> BatchTargets:
        """Add the outputs of the start model for the patches to the targets, if there is one."""
        if self._start is None:
            return targets
        network, threshold = self._start
        with torch.no_grad(), autocast(self.device.type, self.config.precision):
            given = network(image)[:, : image.ndim - 1].float()
        return replace(targets, start=torch.cat([given, given[:, -1:] - threshold], dim=1))

    def _clip(self, loss: torch.Tensor) -> tuple[float, float]:
        """Clip the gradient, and return loss and norm over all processes; waits once for the device."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        self.world.average([*gradients, loss])
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self._parameters, self.config.clip)
        value, size = torch.stack([loss, norm.float()]).tolist()
        return value, size

    def update_average(self, step: int) -> None:
        """Add the weights after `step` steps to the mean; the first weights are soon forgotten."""
        decay = min(self.config.average, step / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(*self._averaged, 1 - decay)
            _copy(*self._copied)

    def still(self, weights: Mapping[str, torch.Tensor]) -> nn.Module:
        """Return a new network on the device with these weights, for evaluation."""
        network = create_network(self.config.network)
        network.load_state_dict(dict(weights))
        return network.to(self.device).eval().requires_grad_(False)

    def tensors(self) -> Weights:
        """Return all tensors that are carried from step to step, by name."""
        tensors = {f"network.{k}": v for k, v in self._live.items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        return tensors | optimizer_tensors("optimizer", self.optimizer)

    def take(self, tensors: Mapping[str, torch.Tensor], scaler: Mapping[str, Any]) -> None:
        """Restore what `tensors` and `scaler.state_dict()` returned."""
        self.network.load_state_dict(part(tensors, "network"))
        with torch.no_grad():
            for name, value in part(tensors, "average").items():
                self.average[name].copy_(value)
        take_optimizer("optimizer", self.optimizer, tensors)
        if self.scaler.is_enabled() and scaler:
            self.scaler.load_state_dict(dict(scaler))


def _copy(targets: list[torch.Tensor], sources: list[torch.Tensor]) -> None:
    """Copy tensors; unlike torch's function it takes empty lists, as a network without batch norm has no buffers."""
    if targets:
        torch._foreach_copy_(targets, sources)


def part(tensors: Mapping[str, torch.Tensor], name: str) -> Weights:
    """Return the tensors below a name, without this prefix.

    >>> list(part({"network.a.b": torch.zeros(1), "best.a": torch.zeros(1)}, "network"))
    ['a.b']
    """
    return {k.removeprefix(name + "."): v for k, v in tensors.items() if k.startswith(name + ".")}


def optimizer_tensors(name: str, optimizer: torch.optim.Optimizer) -> Weights:
    """Return the state of an optimiser as tensors below a name."""
    states = optimizer.state_dict()["state"].items()
    return {f"{name}.{i}.{k}": torch.as_tensor(v) for i, state in states for k, v in state.items()}


def take_optimizer(name: str, optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Restore what `optimizer_tensors` returned, in the memory layout of the parameters, which fused ones need."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in part(tensors, name).items():
        index, _, entry = key.partition(".")
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value).detach()
        state.setdefault(int(index), {})[entry] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def join_batch_norm(network: nn.Module, device: torch.device, world: World) -> nn.Module:
    """Return the network with batch norm over all processes."""
    if world.size == 1:
        return network
    if device.type == "cuda":
        return cast(nn.Module, nn.SyncBatchNorm.convert_sync_batchnorm(network))  # type: ignore[no-untyped-call]
    return share_batch_norm(network, world)


def _optimizer(network: nn.Module, config: TrainingConfig, device: torch.device) -> torch.optim.Optimizer:
    """Return the optimiser, fused where torch has it: one pass over the weights instead of a dozen."""
    options: dict[str, Any] = {"decoupled_weight_decay": True, "foreach": True} if config.optimizer == "radam" else {}
    if config.optimizer == "adamw" and device.type in ("cpu", "cuda"):
        options["fused"] = True
    return OPTIMIZERS[config.optimizer](
        network.parameters(), lr=config.rate, weight_decay=config.weight_decay, **options
    )
