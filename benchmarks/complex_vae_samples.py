"""How the decoder of a complex VAE is flattened and sampled, and what its samples are worth."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import pyro
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_manifolds.geometry import (
    EncoderPrecisionProxy,
    flatness_factor,
    log_volume,
    sample_by_volume,
)
from pyro_manifolds.nn import ComplexGuide, ComplexModel

__all__ = ["FlattenedModel", "Yardstick", "measure_samples", "path_ratio"]


class FlattenedModel(ComplexModel):
    """The model, with divergences times ``beta`` and a factor that flattens its decoder."""

    beta, weight = 1.0, 0.0

    def forward(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x), dim=-1):
            with poutine.scale(scale=self.beta):
                z = pyro.sample("z", self.prior)
            if self.weight:
                few = min(32, len(x))
                options = {"weight": self.weight, "num_latents": few}
                flatness_factor("flatness", self.decode, z, **options)
            pyro.sample("x", self.decode(z), obs=x)
        return z


class Yardstick(NamedTuple):
    """What samples are held against.

    An outlier is an image whose nearest image of the training data is further away than that of
    all but one in twenty held-out images.
    """

    train: Tensor
    labels: Tensor
    test: Tensor
    distance: Tensor

    @classmethod
    def of(cls, train: Tensor, labels: Tensor, test: Tensor) -> Yardstick:
        """Find the distance of the one in twenty."""
        train, test = train.flatten(1), test.flatten(1)
        nearest = torch.cdist(test, train).amin(1)
        return cls(train, labels, test, nearest.quantile(0.95))

    def scores(self, images: Tensor) -> dict[str, float]:
        """Share of outliers, spread of pixels, entropy of classes, share of the test covered.

        The class of an image is that of the nearest image of the training data.
        """
        images = images.flatten(1)
        nearest = torch.cdist(images, self.train).min(1)
        classes = self.labels[nearest.indices].bincount().double() / len(images)
        covered = torch.cdist(self.test, images).amin(1) <= self.distance
        found = {
            "outliers": (nearest.values > self.distance).double().mean(),
            "pixel std": images.std(0).mean(),
            "class entropy": -torch.xlogy(classes, classes).sum(),
            "coverage": covered.double().mean(),
        }
        return {name: value.item() for name, value in found.items()}


def path_ratio(model: ComplexModel, codes: Tensor, num_points: int = 17) -> Tensor:
    """Return how much longer than its chord the image of a line between two codes is, on average.

    One is a decoder that interpolates straight: the smoother, the nearer to it.
    """
    t = torch.linspace(0, 1, num_points)[:, None, None]
    line = codes[:-1] + t * (codes[1:] - codes[:-1])
    images = model.decode(line).mean.flatten(2)
    lengths = images.diff(dim=0).norm(dim=-1).sum(0)
    return (lengths / (images[-1] - images[0]).norm(dim=-1)).mean()


@torch.no_grad()
def measure_samples(
    model: ComplexModel, guide: ComplexGuide, data: Yardstick, num_samples: int
) -> dict[str, float]:
    """Errors of the pair on held-out data, and scores of its samples, drawn in four ways."""
    shape = (-1, *model.data_shape)
    posterior = guide.posterior(data.test.reshape(shape))
    found = {
        "test MSE": (model.decode(posterior.mean).mean.flatten(1) - data.test).square().mean(),
        "KL": kl_divergence(posterior, model.prior.expand(posterior.batch_shape)).mean(),
    }
    found["path ratio"] = path_ratio(model, posterior.mean)
    codes = guide.posterior(data.train.reshape(shape))
    proxy = EncoderPrecisionProxy(codes.base_dist.loc, codes.base_dist.scale)
    weighted = partial(sample_by_volume, model.prior, num_samples=num_samples)
    exact, cheap = weighted(partial(log_volume, model.decode)), weighted(proxy.log_volume)
    latents = {
        "prior": model.prior.sample((num_samples,)),
        "volume": exact.points,
        "proxy": cheap.points,
        "aggregate": codes.sample()[torch.randint(len(data.train), (num_samples,))],
    }
    found |= {"volume, size": exact.effective_size, "proxy, size": cheap.effective_size}
    scores = {name: value.item() for name, value in found.items()}
    for way, z in latents.items():
        images = data.scores(model.decode(z).mean)
        scores |= {f"{way}, {name}": value for name, value in images.items()}
    return scores
