"""The rule by which maps become labels: every number of the watershed, with its range and effect."""

from __future__ import annotations

from dataclasses import dataclass

from sketchscale.errors import InputError

__all__ = ["WatershedConfig", "watershed_for"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WatershedConfig:
    """The rule by which v, h and m become labels.

    Attributes:
        threshold: foreground is where m, a probability, is at least this.
        edge: no marker lies where the maps fall by at least this share of a whole step from 1 to -1. 0.5 is the step
            from an object to background. Lower values split more touching objects: networks blur the step between them.
        window: side of the window for slopes, px, odd. 17 suits objects of 25 px, for which HoVer-Net takes 21; a
            larger one resists noise, a smaller one keeps thin objects.
        holes: holes of markers up to this size are filled, px; larger ones are not noise.
        opening: radius of the disc by which markers are opened, px; 0 opens nothing. A disc of radius 2 (as in
            HoVer-Net) has 17 px, and so has every marker at least, except at the image's border.
        min_size: objects with fewer pixels, over the whole image, become background.
        max_size: objects with more pixels become background; None keeps them.

    Raises:
        InputError: a value out of range, on creation.

    >>> WatershedConfig().halo
    45
    """

    threshold: float = 0.5
    edge: float = 0.05
    window: int = 17
    holes: int = 32
    opening: int = 2
    min_size: int = 20
    max_size: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise _bad("threshold", self.threshold, "a probability above 0 and below 1, as the model gives h/v maps")
        if not -1 <= self.edge <= 1:
            raise _bad("edge", self.edge, "a share of a whole step, -1 to 1")
        if not 3 <= self.window <= 63 or self.window % 2 == 0:
            raise _bad("window", self.window, "an odd number from 3 to 63 px")
        if not 0 <= self.holes <= 1024 or not 0 <= self.opening <= 16:
            raise _bad("holes, opening", (self.holes, self.opening), "0 to 1024 px, and 0 to 16 px")
        if self.min_size < 0:
            raise _bad("min_size", self.min_size, "0 or more px")
        if self.max_size is not None and self.max_size < max(1, self.min_size):
            raise _bad("max_size", self.max_size, f"at least min_size ({self.min_size}), or none")

    def check_axes(self, axes: int) -> None:
        """Refuse a number of axes that the rule does not support.

        Raises:
            InputError: not a plane.
        """
        if axes != 2:
            raise InputError.of(
                found=f"a model that gives h/v maps, for {axes} axes", expected="flow", fix="another --model"
            )

    @property
    def reach(self) -> int:
        """How far a pixel is moved, px; 0, the counterpart of the flow rule's reach."""
        return 0

    @property
    def radius(self) -> int:
        """How far around a pixel its slope is taken, px along an axis."""
        return self.window // 2

    @property
    def margin(self) -> int:
        """How far around a pixel slopes decide whether it belongs to a marker, px."""
        return self.holes + 2 * self.opening

    @property
    def halo(self) -> int:
        """How far a block reads beyond its core, px."""
        return 1 + self.margin + self.radius


def watershed_for(
    diameter: float, *, threshold: float = 0.5, min_size: int = 20, max_size: int | None = None
) -> WatershedConfig:
    """Return the rule for objects of a diameter, in proportion to window 17 and opening 2 px for objects of 25 px.

    Args:
        diameter: px; 0 or less for unknown, which counts as 25.

    >>> rule = watershed_for(12.0)
    >>> rule.window, rule.opening
    (9, 1)
    """
    size = diameter if diameter > 0 else 25.0
    window = 2 * round((0.68 * size - 1) / 2) + 1
    return WatershedConfig(
        threshold=threshold,
        window=min(max(window, 5), 41),
        opening=min(max(round(0.08 * size), 0), 2),
        min_size=min_size,
        max_size=max_size,
    )


def _bad(field: str, value: object, expected: str) -> InputError:
    return InputError.of(found=f"watershed {field} is {value}", expected=expected, fix=f"set {field}")
