"""Training steps: an auto-encoder with Klein-bottle latents against one with Gaussian latents."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor

from benchmarks.klein_vae import RUNGS, Guide, Model, Protocol
from benchmarks.timing import Entry, Row, measure
from pyro_manifolds.datasets import klein_circles

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
    elbo = Trace_ELBO()(model, guide)
    optimiser = torch.optim.Adam(elbo.parameters(), lr=1e-3)

    def run() -> None:
        optimiser.zero_grad()
        elbo(images).backward()
        optimiser.step()

    return run


ENTRIES: dict[str, Entry] = {"klein_vae": klein_vae}
