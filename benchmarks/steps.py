"""Training steps on manifolds against steps of the same networks with normal distributions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn

from benchmarks.klein_vae import RUNGS, Guide, Model, Protocol
from benchmarks.timing import Entry, Row, measure
from pyro_manifolds.datasets import klein_circles
from pyro_manifolds.distributions import (
    CircleFilter,
    KleinFilter,
    ManifoldMixture,
    WrappedNormal,
)
from pyro_manifolds.manifolds import KleinBottle
from pyro_manifolds.nn.bayesian import BayesianModule, init_to_weights, scaled_to_fan_in

__all__ = ["ENTRIES"]


def klein_vae(seconds: float) -> list[Row]:
    """Compare steps of the same networks, batch and data; the Gaussian latent is the floor."""
    protocol = Protocol()
    images = klein_circles(protocol.batch_size, protocol.size, seed=0).images.flatten(1)
    rungs = {"Gaussian VAE": "Euclidean", "KleinVAE": "+ uniform prior, exact density"}
    steps = {name: _step(rung, protocol, images) for name, rung in rungs.items()}
    times = measure(steps, seconds)
    floor = times["Gaussian VAE"]
    return [Row("klein_vae", name, time, time / floor) for name, time in times.items()]


def _step(rung: str, protocol: Protocol, images: Tensor) -> Callable[[], None]:
    with pyro.settings.context(module_local_params=True):
        model = Model(RUNGS[rung], images.shape[1], protocol)
        guide = Guide(RUNGS[rung], images.shape[1], protocol)
    return _train(Trace_ELBO()(model, guide), images)


def _train(elbo: nn.Module, *data: Tensor) -> Callable[[], None]:
    elbo(*data)  # makes the parameters of automatic guides
    optimiser = torch.optim.Adam(elbo.parameters(), lr=1e-3)

    def run() -> None:
        optimiser.zero_grad()
        elbo(*data).backward()
        optimiser.step()

    return run


_CONV_TARGET = 1.1  # times the step with independent normal weights
_RATIO = 2.0  # of the amplitude of a filter to the noise; larger ones need more nodes


def bayesian_conv(seconds: float) -> list[Row]:
    """Compare priors on the filters of a net with two convolutions, 16 and 512 of 5 x 5.

    Mean-field variational inference, 100 images of 28 x 28; variances by fan-in for all alike.
    """
    priors = _filter_priors()
    steps = {name: _conv_step(prior) for name, prior in priors.items()}
    for name in ("Klein", "Klein, mixture of 8"):
        steps[f"{name}, first layer"] = _conv_step(priors[name], first_only=True)
    times = measure(steps, seconds)
    return [_conv_row(name, times) for name in times]


def _conv_row(name: str, times: dict[str, float]) -> Row:
    """Compare with the same step of independent normal weights, which has the same sites."""
    control = "iid Gaussian" + (", scale as a site" if name.endswith("as a site") else "")
    ratio = times[name] / times[control]
    row = Row("bayesian_conv", name, times[name], ratio)
    if name == control:
        return row
    target = f"<= {_CONV_TARGET} x {control}"
    return dataclasses.replace(row, target=target, passed=ratio <= _CONV_TARGET)


def _filter_priors() -> dict[str, Callable[[Tensor], TorchDistribution]]:
    amplitude = _RATIO / 0.66  # 0.66: the longest filter
    angles = torch.rand(8, 2, generator=torch.manual_seed(0)) * torch.tensor([1.0, 2.0]) * math.pi
    parts = WrappedNormal(KleinBottle(), angles, torch.tensor(0.5))
    mixture = ManifoldMixture(dist.Categorical(torch.ones(8)), parts)
    klein = KleinFilter(5, amplitude, 1.0)
    plain = {
        "iid Gaussian": dist.Normal(0.0, 1.0),
        "matched Gaussian": klein.matched_gaussian(),
        "circle": CircleFilter(5, amplitude, 1.0),
        "Klein": klein,
        "Klein, unit filters": KleinFilter(5, _RATIO, 1.0, unit=True),
        "Klein, mixture of 8": KleinFilter(5, amplitude, 1.0, mixture),
    }
    scaled = {name: scaled_to_fan_in(prior) for name, prior in plain.items()}
    he, iid = scaled["Klein"], scaled["iid Gaussian"]

    def learned_normal(weight: Tensor) -> TorchDistribution:
        return dist.Normal(0.0, iid(weight).scale * pyro.sample("scale", dist.HalfNormal(1.0)))

    def learned_scale(weight: Tensor) -> TorchDistribution:
        return he(weight).rescale(pyro.sample("scale", dist.HalfNormal(1.0)))

    def learned_amplitude(weight: Tensor) -> TorchDistribution:
        like = he(weight)
        size = pyro.sample("amplitude", dist.HalfNormal(1.0)) * like.amplitude
        return KleinFilter(5, size, like.noise)

    return scaled | {
        "iid Gaussian, scale as a site": learned_normal,
        "Klein, scale as a site": learned_scale,
        "Klein, amplitude as a site": learned_amplitude,
    }


def _conv_step(
    prior: Callable[[Tensor], TorchDistribution], first_only: bool = False
) -> Callable[[], None]:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(512, 10)),
    )
    with pyro.settings.context(module_local_params=True):
        model = BayesianModule(net, {"0" if first_only else nn.Conv2d: prior}, data_size=1000)
        guide = AutoNormal(model, init_loc_fn=init_to_weights(net), init_scale=0.01)
    return _train(
        Trace_ELBO()(model, guide), torch.rand(100, 1, 28, 28), torch.randint(10, (100,))
    )


ENTRIES: dict[str, Entry] = {"klein_vae": klein_vae, "bayesian_conv": bayesian_conv}
