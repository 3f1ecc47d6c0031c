"""Networks from maps to images and back, trained together without pairs: one step, and the state between steps.

        S ──G──▶ image ──F──▶ maps        cycle maps, points of S, D_X is the critic of the image
        X ──F──▶ maps ──G──▶ image        cycle image, points of X, D_S is the critic of the maps

Guarantees:
  * a step is a function of the state and the batch; it is applied completely, or raises and changes no weight;
  * processes that train together hold the same weights, to the bit: gradients are averaged, batch norm is over all
    crops of the step. Terms that are ratios (points, slopes, Dice) are computed from each process's own crops, so
    training with several processes is nearly the same as with one, not exactly.

Source: "Points to synthetic microscopy" (weights of the terms as released: 5 for both cycles, 1 for both points).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from sketchscale.errors import InputError
from sketchscale.networks.precision import autocast
from sketchscale.synthesis.layouts import LayoutPrior
from sketchscale.synthesis.losses import critic_loss, fooling_loss, map_loss, maps_of, point_loss
from sketchscale.synthesis.model import mask_network
from sketchscale.synthesis.networks import MAPS, Critic, Generator, GeneratorConfig, settle_norms
from sketchscale.synthesis.scenes import SceneBatch
from sketchscale.training.distributed import World
from sketchscale.training.frame import NotANumberError
from sketchscale.training.learner import join_batch_norm, optimizer_tensors, part, take_optimizer

__all__ = ["PAPER_SIZE", "Gan", "GanConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GanConfig:
    """Options for training a synthesis.

    Attributes:
        generator: its shape.
        critic_width: features of the critics' first level; 64 in the paper.
        mask_widths: of the U-Net from images to maps.
        prior: of the shape of objects.
        steps, batch, crop: the last in px, a multiple of 32.
        rate: of Adam, constant for the first three quarters, then falling to 0.
        cycle, points: weights of these terms; the adversarial terms have weight 1.
        ema: share of the running mean of the weights that a step keeps; the mean is saved and shown.
        given: share of layouts around given points; the others use points drawn from the density model.
        precision: of forward and backward passes.
        sheet_every: steps between sample sheets in the run folder; 0 for none.
        save_every_s: seconds between saved states.
    """

    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    critic_width: int = 16
    mask_widths: tuple[int, ...] = (8, 16, 32, 64)
    prior: LayoutPrior = field(default_factory=LayoutPrior)
    steps: int = 3000
    batch: int = 4
    crop: int = 128
    rate: float = 2e-4
    cycle: float = 5.0
    points: float = 1.0
    ema: float = 0.998
    given: float = 0.5
    precision: Literal["float32", "bfloat16"] = "float32"
    sheet_every: int = 250
    save_every_s: float = 60.0
    seed: int = 0
    device: str = "cpu"
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.crop < 64 or self.crop % self.generator.stride:
            raise InputError.of(
                found=f"crops of {self.crop} px",
                expected=f"a multiple of {self.generator.stride}, at least 64",
                fix="--crop 128",
            )
        if self.steps < 1 or self.batch < 1 or not 0 <= self.given <= 1:
            raise InputError.of(
                found=f"{self.steps} steps, {self.batch} crops each, {self.given} given",
                expected="at least 1 of each, and a share",
                fix="start from the defaults",
            )
        if not 0 < self.rate <= 1:
            raise InputError.of(found=f"a rate of {self.rate:g}", expected="above 0, at most 1", fix="--rate 2e-4")

    def weight_of(self, term: str) -> float:
        """Return the weight of a term of the generators' loss; 0 for the critics' loss."""
        return {"cycle": self.cycle, "points": self.points, "fool": 1.0}.get(term.partition("_")[0], 0.0)

    def total(self, terms: Mapping[str, float]) -> float:
        """Return the generators' loss."""
        return sum(self.weight_of(name) * value for name, value in terms.items())

    def rate_at(self, step: int) -> float:
        """Return the learning rate of step 0, 1, ..."""
        return self.rate * min(1.0, 4 * (1 - step / self.steps))


PAPER_SIZE = GanConfig(
    generator=GeneratorConfig(width=32, hidden=128),
    critic_width=64,
    mask_widths=(32, 64, 128, 256),
    steps=300_000,
    batch=8,
    crop=256,
)
"""Sizes of "Points to synthetic microscopy", whose 4,000 epochs are about as many steps; for a GPU."""


@dataclass(slots=True)
class Gan:
    """Four networks, two optimisers, the running means of the first two networks; see the module."""

    config: GanConfig
    device: torch.device
    world: World = field(default_factory=World)
    nets: nn.ModuleDict = field(init=False)
    means: nn.ModuleDict = field(init=False)
    generators: torch.optim.Adam = field(init=False)
    critics: torch.optim.Adam = field(init=False)

    def __post_init__(self) -> None:
        self.nets = self._networks().to(self.device).train()
        self.nets["f"] = join_batch_norm(self.nets["f"], self.device, self.world)
        self.means = nn.ModuleDict({k: self._networks()[k] for k in ("g", "f")}).to(self.device).train()
        self.means.load_state_dict({k: v for k, v in self.nets.state_dict().items() if k[0] in "gf"})
        self.means.requires_grad_(False)
        self.generators, self.critics = (
            torch.optim.Adam(
                itertools.chain(*(self.nets[name].parameters() for name in names)), self.config.rate, betas=(0.5, 0.999)
            )
            for names in (("g", "f"), ("dx", "ds"))
        )

    def _networks(self) -> nn.ModuleDict:
        channels = self.config.generator.channels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            return nn.ModuleDict(
                {
                    "g": Generator(self.config.generator),
                    "f": mask_network(channels, self.config.mask_widths, self.config.seed),
                    "dx": Critic(channels, self.config.critic_width),
                    "ds": Critic(MAPS, self.config.critic_width),
                }
            )

    def learn(self, batch: SceneBatch, step: int) -> dict[str, float]:
        """Train generators and critics for one step; return the terms of the loss before the step.

        Raises:
            NotANumberError: the loss or a gradient is not finite; no weight was changed.
        """
        buffers = [b.clone() for b in self.nets.buffers()]
        dx, ds = self.nets["dx"], self.nets["ds"]
        try:
            terms, image, maps = self._generate(batch)
            total = torch.stack([self.config.weight_of(name) * value for name, value in terms.items()]).sum()
            self._backward(self.generators, total, terms)
            with autocast(self.device.type, self.config.precision):
                of_images = critic_loss(dx(batch.image).float(), dx(image).float())
                criticism = of_images + critic_loss(ds(batch.maps).float(), ds(maps).float())
            # both gradients are computed before either is applied, so that a bad one changes nothing
            parameters = [p for group in self.generators.param_groups for p in group["params"]]
            keep = [p.grad for p in parameters]
            self._backward(self.critics, criticism, terms)
            for p, grad in zip(parameters, keep, strict=True):
                p.grad = grad
        except NotANumberError:
            for buffer, before in zip(self.nets.buffers(), buffers, strict=True):
                buffer.copy_(before)
            raise
        for optimizer in (self.generators, self.critics):
            for group in optimizer.param_groups:
                group["lr"] = self.config.rate_at(step)
            optimizer.step()
        self.world.average([b for b in self.nets.buffers() if b.is_floating_point()])
        self._update_means(step)
        return {name: float(value.detach()) for name, value in (*terms.items(), ("critics", criticism))}

    def _generate(self, batch: SceneBatch) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
        """Return the terms of the generators' loss, and the generated images and maps."""
        g, f = self.nets["g"], self.nets["f"]
        for name in ("dx", "ds"):
            self.nets[name].requires_grad_(False)
        with autocast(self.device.type, self.config.precision):
            image = g(batch.maps, batch.noise)
            back = f(image).float()
            outputs = f(batch.image).float()
            maps = maps_of(outputs)
            again = g(maps, batch.noise).float()
            terms = {
                "fool_image": fooling_loss(self.nets["dx"](image).float()),
                "fool_maps": fooling_loss(self.nets["ds"](maps).float()),
            }
        terms["cycle_image"] = (again - batch.image).abs().mean()
        terms["cycle_maps"] = map_loss(back, batch.maps)
        terms["points_image"] = point_loss(outputs, batch.image_points)
        terms["points_maps"] = point_loss(back, batch.map_points)
        for name in ("dx", "ds"):
            self.nets[name].requires_grad_(True)
        return terms, image.detach().float(), maps.detach()

    def _backward(self, optimizer: torch.optim.Adam, loss: torch.Tensor, terms: Mapping[str, torch.Tensor]) -> None:
        """Compute gradients of the mean loss of all processes; raise NotANumberError if they are not finite."""
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        shared = loss.detach().clone()
        self.world.average([*grads, shared])
        sizes = torch.stack([shared, *torch._foreach_norm(grads)])
        if not bool(torch.isfinite(sizes).all()):
            listed = ", ".join(f"{name} {float(value.detach()):.3g}" for name, value in terms.items())
            raise NotANumberError(f"loss {float(shared):.3g} ({listed})")

    def _update_means(self, step: int) -> None:
        keep = min(self.config.ema, (step + 1) / (step + 10))
        live = self.nets.state_dict()
        with torch.no_grad():
            for name, mean in self.means.state_dict().items():
                # a mean of singular vectors is not a singular vector; see settle_norms
                if mean.is_floating_point() and not name.endswith(("._u", "._v")):
                    mean.lerp_(live[name], 1 - keep)
                else:
                    mean.copy_(live[name])

    def ema(self) -> tuple[Generator, nn.Module]:
        """Return the running means of the generator and of the mask network, ready for use."""
        g, f = self.means["g"].eval(), self.means["f"].eval()
        assert isinstance(g, Generator)
        settle_norms(g)
        return g, f

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the state between steps, by name."""
        found = {f"nets.{k}": v for k, v in self.nets.state_dict().items()}
        found |= {f"means.{k}": v for k, v in self.means.state_dict().items()}
        return found | optimizer_tensors("makers", self.generators) | optimizer_tensors("judges", self.critics)

    def take(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore the state that `tensors` returned."""
        self.nets.load_state_dict(part(tensors, "nets"))
        self.means.load_state_dict(part(tensors, "means"))
        take_optimizer("makers", self.generators, tensors)
        take_optimizer("judges", self.critics, tensors)
