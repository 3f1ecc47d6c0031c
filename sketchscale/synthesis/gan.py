"""Maps to images and back, taught together without pairs: one step, and what is carried from step to step.

        S ──G──▶ image ──F──▶ maps        cycle maps, points of S, D_X judges the image
        X ──F──▶ maps ──G──▶ image        cycle image, points of X, D_S judges the maps

Guarantees:
  * a step is a function of the state and the batch; it happens whole, or raises and changes no weight;
  * processes that train together hold the same weights, to the bit: gradients are averaged, batch norm is over all
    crops of the step. Terms that are ratios (points, slopes, Dice) are those of a process's own crops, so several
    processes teach nearly what one would, not exactly.

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
    """How a synthesis is trained.

    Attributes:
        generator: its shape.
        critic_width: features of the critics' first level; 64 in the paper.
        mask_widths: of the U-Net from images to maps.
        prior: what objects look like.
        steps, batch, crop: the last in px, a multiple of 32.
        rate: of Adam, constant for the first three quarters, then falling to 0.
        cycle, points: weights of the terms beside the adversarial ones.
        ema: share of the running mean of the weights that a step keeps; what is saved and shown is the mean.
        given: share of layouts around given points; the others stand on points drawn from the density model.
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
        """Of a term of the makers' loss; 0 for the critics' own."""
        return {"cycle": self.cycle, "points": self.points, "fool": 1.0}.get(term.partition("_")[0], 0.0)

    def total(self, terms: Mapping[str, float]) -> float:
        """The makers' loss."""
        return sum(self.weight_of(name) * value for name, value in terms.items())

    def rate_at(self, step: int) -> float:
        """Of step 0, 1, ..."""
        left = 1 - step / self.steps
        return self.rate * min(1.0, 4 * left)


PAPER_SIZE = GanConfig(
    generator=GeneratorConfig(width=32, hidden=128),
    critic_width=64,
    mask_widths=(32, 64, 128, 256),
    steps=300_000,
    batch=8,
    crop=256,
)
"""As "Points to synthetic microscopy", whose 4,000 epochs are about as many steps; for a GPU."""


@dataclass(slots=True)
class Gan:
    """Four networks, two optimisers, the running means of the first two networks; see the module."""

    config: GanConfig
    device: torch.device
    world: World = field(default_factory=World)
    nets: nn.ModuleDict = field(init=False)
    means: nn.ModuleDict = field(init=False)
    makers: torch.optim.Adam = field(init=False)
    judges: torch.optim.Adam = field(init=False)

    def __post_init__(self) -> None:
        self.nets = self._networks().to(self.device).train()
        self.nets["f"] = join_batch_norm(self.nets["f"], self.device, self.world)
        self.means = nn.ModuleDict({k: self._networks()[k] for k in ("g", "f")}).to(self.device).train()
        self.means.load_state_dict({k: v for k, v in self.nets.state_dict().items() if k[0] in "gf"})
        self.means.requires_grad_(False)
        made = itertools.chain(self.nets["g"].parameters(), self.nets["f"].parameters())
        judged = itertools.chain(self.nets["dx"].parameters(), self.nets["ds"].parameters())
        self.makers = torch.optim.Adam(made, self.config.rate, betas=(0.5, 0.999))
        self.judges = torch.optim.Adam(judged, self.config.rate, betas=(0.5, 0.999))

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
        """One step of makers and judges; returns the terms of the loss, as they were before it.

        Raises:
            NotANumberError: no weight was changed.
        """
        buffers = [b.clone() for b in self.nets.buffers()]
        try:
            terms, image, maps = self._make(batch)
            total = torch.stack([self.config.weight_of(name) * value for name, value in terms.items()]).sum()
            self._backward(self.makers, total, terms)
            judged = self._judge(batch, image, maps)
            # both gradients are known before either is applied, so that a bad one changes nothing
            keep = [p.grad for group in self.makers.param_groups for p in group["params"]]
            self._backward(self.judges, judged, terms)
            for p, grad in zip((p for group in self.makers.param_groups for p in group["params"]), keep, strict=True):
                p.grad = grad
        except NotANumberError:
            for buffer, before in zip(self.nets.buffers(), buffers, strict=True):
                buffer.copy_(before)
            raise
        for optimizer in (self.makers, self.judges):
            for group in optimizer.param_groups:
                group["lr"] = self.config.rate_at(step)
            optimizer.step()
        self.world.average([b for b in self.nets.buffers() if b.is_floating_point()])
        self._update_means(step)
        return {name: float(value.detach()) for name, value in (*terms.items(), ("critics", judged))}

    def _make(self, batch: SceneBatch) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
        """Terms of the makers, the images and the maps they made."""
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

    def _judge(self, batch: SceneBatch, image: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        dx, ds = self.nets["dx"], self.nets["ds"]
        with autocast(self.device.type, self.config.precision):
            of_images = critic_loss(dx(batch.image).float(), dx(image).float())
            return of_images + critic_loss(ds(batch.maps).float(), ds(maps).float())

    def _backward(self, optimizer: torch.optim.Adam, loss: torch.Tensor, terms: Mapping[str, torch.Tensor]) -> None:
        """Gradients of the mean loss of all processes."""
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        shared = loss.detach().clone()
        self.world.average([*grads, shared])
        sizes = torch.stack([shared, *torch._foreach_norm(grads)])
        if not bool(torch.isfinite(sizes).all()):
            told = ", ".join(f"{name} {float(value.detach()):.3g}" for name, value in terms.items())
            raise NotANumberError(f"loss {float(shared):.3g} ({told})")

    def _update_means(self, step: int) -> None:
        keep = min(self.config.ema, (step + 1) / (step + 10))
        live = self.nets.state_dict()
        with torch.no_grad():
            for name, mean in self.means.state_dict().items():
                # a mean of singular vectors is no singular vector; see settle_norms
                if mean.is_floating_point() and not name.endswith(("._u", "._v")):
                    mean.lerp_(live[name], 1 - keep)
                else:
                    mean.copy_(live[name])

    def still(self) -> tuple[Generator, nn.Module]:
        """The running means of the generator and of the mask network, fit for use as they are now."""
        g, f = self.means["g"].eval(), self.means["f"].eval()
        assert isinstance(g, Generator)
        settle_norms(g)
        return g, f

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that is carried from step to step, by name."""
        found = {f"nets.{k}": v for k, v in self.nets.state_dict().items()}
        found |= {f"means.{k}": v for k, v in self.means.state_dict().items()}
        return found | optimizer_tensors("makers", self.makers) | optimizer_tensors("judges", self.judges)

    def take(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """What `tensors` returned, back."""
        self.nets.load_state_dict(part(tensors, "nets"))
        self.means.load_state_dict(part(tensors, "means"))
        take_optimizer("makers", self.makers, tensors)
        take_optimizer("judges", self.judges, tensors)
