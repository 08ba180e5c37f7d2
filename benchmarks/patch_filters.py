"""Laws of filters: normals, mixtures of them, and laws of several sizes."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints, transform_to

from pyro_manifolds.distributions import GaussianFilter, KleinFilter
from pyro_manifolds.nn import KleinFilterPrior
from pyro_manifolds.nn.filter_prior import spectrum

__all__ = [
    "FilterLevels",
    "FilterMixture",
    "FullNormal",
    "KleinLevels",
    "SpectralMixture",
    "SpectralNormal",
    "WhiteNormal",
    "start_noise_at",
]

_CHOLESKY = transform_to(constraints.lower_cholesky)


class WhiteNormal(nn.Module):
    """Independent weights of one variance."""

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.register_buffer("eye", torch.eye(kernel_size**2))

    def forward(self) -> GaussianFilter:
        return GaussianFilter(scale_tril=self.log_scale.exp() * self.eye, validate_args=False)


class SpectralNormal(nn.Module):
    """Independent cosines, whose variances are a power of their eigenvalues but for the mean.

    Args:
        kernel_size: Side of the filters.
        number: Number of such laws, a batch of them, of different sizes at the start.
    """

    basis: Tensor
    eigenvalues: Tensor

    def __init__(self, kernel_size: int, number: int | None = None) -> None:
        super().__init__()
        basis, eigenvalues = spectrum(kernel_size)
        self.register_buffer("basis", basis)
        self.register_buffer("eigenvalues", eigenvalues)
        start = torch.zeros(1) if number is None else torch.linspace(-1, 1, number).unsqueeze(-1)
        self.log_mean = nn.Parameter(start.clone())
        self.log_scale = nn.Parameter(start.clone())
        self.exponent = nn.Parameter(torch.ones_like(start))

    def forward(self) -> GaussianFilter:
        scales = self.log_scale.exp() * self.eigenvalues.pow(-0.5 * self.exponent)
        factor = self.basis * torch.cat([self.log_mean.exp(), scales], -1).unsqueeze(-2)
        return GaussianFilter(covariance_matrix=factor @ factor.mT, validate_args=False)


class SpectralMixture(nn.Module):
    """Mixture of spectral normals."""

    def __init__(self, kernel_size: int, number: int) -> None:
        super().__init__()
        self.parts = SpectralNormal(kernel_size, number)
        self.logits = nn.Parameter(torch.zeros(number))
        self.num_parameters = 4 * number - 1

    def log_prob(self, filters: Tensor) -> Tensor:
        weights = dist.Categorical(logits=self.logits, validate_args=False)
        return dist.MixtureSameFamily(weights, self.parts(), validate_args=False).log_prob(filters)


class FullNormal(nn.Module):
    """Normal of any covariance, that of the data, or learned from there on."""

    def __init__(self, train: Tensor, *, learned: bool = False) -> None:
        super().__init__()
        raw = _CHOLESKY.inv(_tril(train))
        self.raw = nn.Parameter(raw, requires_grad=learned)
        self.num_parameters = len(raw) * (len(raw) + 1) // 2

    def forward(self) -> GaussianFilter:
        return GaussianFilter(scale_tril=_CHOLESKY(self.raw), validate_args=False)


@torch.no_grad()
def start_noise_at(prior: KleinFilterPrior, train: Tensor) -> None:
    """Start noise of a full shape at the covariance of the data."""
    tril = _tril(train)
    prior.raw_tril.copy_(_CHOLESKY.inv(tril / prior().noise))


class FilterLevels(nn.Module):
    """Law of filters times one of several random factors, the first of them one.

    Args:
        law: Module that returns a distribution of filters.
        levels: Number of factors; with one the law stays what it is.
    """

    def __init__(self, law: nn.Module, levels: int) -> None:
        super().__init__()
        self.law = law
        self.log_factors = nn.Parameter(0.7 * torch.arange(1.0, levels))
        self.logits = nn.Parameter(torch.zeros(levels if levels > 1 else 0))

    def log_prob(self, filters: Tensor) -> Tensor:
        law = self.law()
        if not len(self.logits):
            return law.log_prob(filters)
        factors = torch.cat([self.log_factors.new_ones(1), self.log_factors.exp()])
        weights = dist.Categorical(logits=self.logits, validate_args=False)
        return dist.MixtureSameFamily(weights, law.rescale(factors), validate_args=False).log_prob(
            filters
        )

    @property
    def num_parameters(self) -> int:
        own = getattr(self.law, "num_parameters", None)
        if own is None:
            own = sum(p.numel() for p in self.law.parameters())
        return own + 2 * len(self.log_factors)


class KleinLevels(nn.Module):
    """Filters round the Klein bottle with one of several pairs of amplitude and noise.

    So patches of strong contrast may be near to the Klein bottle, or far from it.

    Args:
        prior: Gives the density of points and the shape of the noise.
        levels: Number of pairs.
    """

    def __init__(self, prior: KleinFilterPrior, levels: int) -> None:
        super().__init__()
        self.prior = prior
        start = prior()
        spread = 0.7 * (torch.arange(levels) - 0.5 * (levels - 1))
        self.log_amplitude = nn.Parameter(start.amplitude.detach().log() + spread)
        self.log_noise = nn.Parameter(start.noise.detach().log() - spread)
        self.logits = nn.Parameter(torch.zeros(levels))
        prior.log_amplitude.requires_grad_(False)  # not used
        prior.log_noise.requires_grad_(False)

    def log_prob(self, filters: Tensor) -> Tensor:
        parts = KleinFilter(
            self.prior.kernel_size,
            self.log_amplitude.exp(),
            self.log_noise.exp(),
            None if self.prior.density is None else self.prior.density(),
            unit=self.prior.unit,
            noise_tril=self.prior.noise_tril,
            num_nodes=self.prior.num_nodes,
            validate_args=False,
        )
        weights = dist.Categorical(logits=self.logits, validate_args=False)
        return dist.MixtureSameFamily(weights, parts, validate_args=False).log_prob(filters)

    @property
    def num_parameters(self) -> int:
        # Of the prior's own amplitude and noise, each level has one of its own.
        return self.prior.num_parameters - 2 + 3 * len(self.logits) - 1


class FilterMixture(nn.Module):
    """Mixture of normals of zero mean and any covariance.

    Args:
        train: Filters; components start at their covariance, stretched along some of them.
        number: Number of components.
        generator: Source of the choice.
    """

    def __init__(self, train: Tensor, number: int, generator: torch.Generator) -> None:
        super().__init__()
        rows = train.flatten(1)
        size = rows.shape[1]
        chosen = rows[torch.randperm(len(rows), generator=generator)[:number]]
        covariance = (rows.mT @ rows / len(rows) + chosen[:, :, None] * chosen[:, None]) / 2
        tril = torch.linalg.cholesky(covariance + 1e-4 * torch.eye(size))
        self.raw = nn.Parameter(_CHOLESKY.inv(tril))
        self.logits = nn.Parameter(torch.zeros(number))
        self.num_parameters = number * size * (size + 1) // 2 + number - 1

    def log_prob(self, filters: Tensor) -> Tensor:
        parts = GaussianFilter(scale_tril=_CHOLESKY(self.raw), validate_args=False)
        weights = dist.Categorical(logits=self.logits, validate_args=False)
        return dist.MixtureSameFamily(weights, parts, validate_args=False).log_prob(filters)


def _tril(train: Tensor) -> Tensor:
    rows = train.flatten(1).double()
    return torch.linalg.cholesky(rows.mT @ rows / len(rows)).to(train.dtype)
