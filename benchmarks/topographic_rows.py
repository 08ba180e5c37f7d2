"""The models that the benchmark of topographic VAEs compares: a ladder, and controls."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor, nn

from pyro_manifolds.distributions import Shifted
from pyro_manifolds.distributions.neighborhoods import Neighborhood
from pyro_manifolds.nn import TopographicGuide, TopographicModel
from pyro_manifolds.nn.networks import perceptron
from pyro_manifolds.nn.topographic_vae import median_and_spread

__all__ = ["ROWS", "Row"]

Window = Callable[[int, int], Neighborhood]


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        window: Neighbourhood for a number of frames, and of capsules with as many slots.
        raw: Whether the decoder reads latents as they are, as published.
        model: Class of the model.
        guide: Class of the guide.
        options: Arguments of the model; ``auxiliary`` is one of the guide, too.
        start_loc: Where the loc starts on its way to that of the options, reached half-way through
            training; there all along, if none.
    """

    window: Window
    raw: bool = False
    model: type[TopographicModel] = TopographicModel
    guide: type[TopographicGuide] = TopographicGuide
    options: dict[str, Any] = field(default_factory=dict)
    start_loc: float | None = None

    def build(
        self, frames: int, capsules: int, frame_shape: Sequence[int], hidden: Sequence[int]
    ) -> tuple[TopographicModel, TopographicGuide]:
        """Return model and guide at their start."""
        window = self.window(frames, capsules)
        model = self.model(window, frame_shape, hidden=hidden, **self.options)
        if self.raw:
            model.center.zero_()
            model.spread.fill_(1.0)
        given = {key: self.options[key] for key in ("auxiliary",) if key in self.options}
        return model, self.guide(window, frame_shape, hidden=hidden, **given)

    def schedule(self, model: TopographicModel, progress: float) -> None:
        """Set what changes in training, at a share of its steps."""
        if self.start_loc is not None:
            final = self.options.get("loc", 30.0)
            loc = self.start_loc + (final - self.start_loc) * min(1.0, 2 * progress)
            center, spread = median_and_spread(model.neighborhood, loc)
            model.loc.fill_(loc)
            model.center.fill_(center)
            model.spread.fill_(spread)


class PlainModel(TopographicModel):
    """A VAE: the decoder reads z itself."""

    def code(self, z: Tensor, u2: Tensor | None = None) -> Tensor:
        return z

    @property
    def priors(self) -> tuple[TorchDistribution, ...]:  # type: ignore[override]
        return super().priors[:1]

    def forward(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.priors[0])
            law = self.likelihood(self.decode(z))
            pyro.sample("x", law.to_event(x.dim() - 1), obs=x)
        return z


class PlainGuide(TopographicGuide):
    """The encoder of a VAE."""

    def posterior(self, x: Tensor) -> tuple[TorchDistribution, ...]:  # type: ignore[override]
        return super().posterior(x)[:1]

    def moments(self, x: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return super().moments(x)[:1]

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", self.posterior(x)[0])


class BothModel(TopographicModel):
    """The decoder reads t and, as further capsules, z."""

    def __init__(
        self, window: Neighborhood, frame_shape: Sequence[int], *, hidden: Sequence[int]
    ) -> None:
        capsules, slots = window.event_shape[-2:]
        sizes = (2 * capsules * slots, *hidden, math.prod(frame_shape))
        decoder = nn.Sequential(*perceptron(sizes), nn.Unflatten(-1, tuple(frame_shape)))
        super().__init__(window, frame_shape, decoder=decoder)
        self.center = torch.stack([self.center, torch.tensor(0.0)]).repeat_interleave(capsules)
        self.spread = torch.stack([self.spread, torch.tensor(1.0)]).repeat_interleave(capsules)
        self.center, self.spread = self.center[:, None], self.spread[:, None]

    def code(self, z: Tensor, u2: Tensor) -> Tensor:
        return torch.cat([super().code(z, u2), z], -2)


class LearnedModel(TopographicModel):
    """The weights of the taps are learned, from one each."""

    def __init__(
        self, window: Shifted, frame_shape: Sequence[int], *, hidden: Sequence[int]
    ) -> None:
        super().__init__(window, frame_shape, hidden=hidden)
        self.taps, self.log_weights = window.taps, nn.Parameter(torch.zeros(len(window.taps)))

    def code(self, z: Tensor, u2: Tensor) -> Tensor:
        frames, capsules, slots = self.neighborhood.event_shape
        weights = self.log_weights.exp()
        window = Shifted.from_taps(
            frames, slots, self.taps, weights=weights, num_capsules=capsules
        )
        return (z + self.loc) * window.forward(u2).rsqrt()


class Mixed(Neighborhood):
    """One window for half of the capsules, and another one for the rest."""

    def __init__(self, first: Shifted, second: Shifted) -> None:
        self.parts = first, second
        self.num_frames, capsules, slots = first.event_shape
        self.counts = [part.num_capsules for part in self.parts]
        self.event_shape = self.noise_shape = Size([self.num_frames, sum(self.counts), slots])

    def _forward(self, u2: Tensor) -> Tensor:
        halves = u2.split(self.counts, -2)
        return torch.cat([f.forward(u) for f, u in zip(self.parts, halves, strict=True)], -2)

    def _transpose(self, t2: Tensor) -> Tensor:
        halves = t2.split(self.counts, -2)
        return torch.cat([f.transpose(t) for f, t in zip(self.parts, halves, strict=True)], -2)

    @property
    def num_terms(self) -> Tensor:
        return torch.cat([part.num_terms for part in self.parts], -2)

    def _key(self) -> tuple[object, ...]:
        return self.parts


def band(length: int, breadth: int = 1) -> Window:
    """The window of the published code."""
    return lambda frames, capsules: Shifted.band(
        frames, frames, length, breadth, num_capsules=capsules
    )


def shifted(half_width: int, kernel_size: int, **options: Any) -> Window:
    """The window of the paper, or one that is not rolled."""
    return lambda frames, capsules: Shifted(
        frames, frames, half_width, kernel_size, num_capsules=capsules, **options
    )


def mixed(frames: int, capsules: int) -> Mixed:
    """Half the capsules roll over five frames, half stay as they are for the whole sequence."""
    constant = Shifted(frames, frames, frames, 1, num_capsules=capsules // 2, roll=0)
    return Mixed(band(5)(frames, capsules - capsules // 2), constant)  # type: ignore[arg-type]


ROWS = {
    "VAE": Row(band(5), True, PlainModel, PlainGuide, {"gain": 1.0}),
    "VAE, gain 3": Row(band(5), True, PlainModel, PlainGuide, {"gain": 3.0}),
    "published": Row(band(5), True, options={"auxiliary": "normal", "gain": 1.0}),
    "+ half-normal": Row(band(5), True, options={"gain": 1.0}),
    "+ standardised": Row(band(5), options={"gain": 1.0}),
    "+ gain 3": Row(band(5)),
    "normal auxiliaries": Row(band(5), options={"auxiliary": "normal"}),
    "bubbles": Row(shifted(2, 3, roll=0)),
    "single frames": Row(shifted(0, 3)),
    "k = 8": Row(band(8)),
    "k = 12": Row(band(12)),
    "L = 2, K = 3": Row(shifted(2, 3)),
    "L = 2, K = 1": Row(shifted(2, 1)),
    "loc 0": Row(band(5), options={"loc": 0.0}),
    "loc from 3 to 30": Row(band(5), start_loc=3.0),
    "t and z decoded": Row(band(5), model=BothModel),
    "learned window": Row(shifted(2, 3), model=LearnedModel),
    "mixed windows": Row(mixed),
}
