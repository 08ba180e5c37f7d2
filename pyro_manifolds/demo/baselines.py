"""Densities on the sphere without a latent manifold, to compare with."""

import math

import torch
from pyro.distributions import MixtureSameFamily
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn.functional import normalize

from pyro_manifolds.demo.training import fit
from pyro_manifolds.distributions import PowerSpherical

__all__ = [
    "PowerSphericalMixture",
    "angular_gaussian_log_prob",
    "fit_angular_gaussian",
    "fit_mixture",
    "uniform_log_prob",
]


def uniform_log_prob(x: Tensor) -> Tensor:
    """Log-density of the uniform law of the sphere, with respect to its surface measure.

    Args:
        x: Unit vectors, ``batch + (d,)``.

    Example:
        >>> uniform_log_prob(torch.eye(3)[0])  # the sphere has the area 4 pi
        tensor(-2.5310)
    """
    return x.new_full(x.shape[:-1], -_log_area(x.shape[-1]))


def fit_angular_gaussian(x: Tensor, *, steps: int = 200) -> Tensor:
    r"""Fit a Gaussian of zero mean, projected on the sphere, by maximum likelihood.

    Tyler's fixed point :math:`\Sigma \propto \sum_i x_i x_i^\top / x_i^\top \Sigma^{-1} x_i`,
    which converges to the one maximum.

    References:
        | Statistical analysis for the angular central Gaussian distribution on the sphere
          (Tyler, 1987)
        | https://doi.org/10.1093/biomet/74.3.579

    Args:
        x: Unit vectors, shape ``(n, d)``, with n above d.
        steps: Number of iterations.

    Returns:
        The shape matrix, ``(d, d)``, in float64, of trace d.

    Example:
        >>> x = normalize(torch.randn(10_000, 3) * torch.tensor([1.0, 1.0, 2.0]), dim=-1)
        >>> fit_angular_gaussian(x).diagonal().round(decimals=1)
        tensor([0.5000, 0.5000, 2.0000], dtype=torch.float64)
    """
    x = x.double()
    shape = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    for _ in range(steps):
        shape = (x.mT / _quadratic(x, shape)) @ x
        shape = shape * (len(shape) / shape.trace())
    return shape


def angular_gaussian_log_prob(x: Tensor, shape: Tensor) -> Tensor:
    """Log-density of the angular central Gaussian law, with respect to the surface measure.

    Args:
        x: Unit vectors, ``(n, d)``.
        shape: Positive definite matrix, ``(d, d)``; its scale does not matter.

    Example:
        >>> angular_gaussian_log_prob(torch.eye(3)[:2].double(), 5 * torch.eye(3).double())
        tensor([-2.5310, -2.5310], dtype=torch.float64)
    """
    x = x.to(shape.dtype)
    d = x.shape[-1]
    return -0.5 * (shape.logdet() + d * _quadratic(x, shape).log()) - _log_area(d)


class PowerSphericalMixture(nn.Module):
    """Mixture of power spherical laws; called on data, the summed negative log-likelihood.

    Args:
        start: Unit vectors to start the locations at, shape ``(components, d)``.
        concentration: Concentration to start at.

    Example:
        >>> mixture = PowerSphericalMixture(torch.eye(8))
        >>> mixture.law().log_prob(torch.eye(8)[:2]).shape
        torch.Size([2])
    """

    def __init__(self, start: Tensor, concentration: float = 20.0) -> None:
        super().__init__()
        self.direction = nn.Parameter(start.clone())
        self.log_concentration = nn.Parameter(
            start.new_full(start.shape[:-1], concentration).log()
        )
        self.logits = nn.Parameter(start.new_zeros(start.shape[:-1]))

    def law(self) -> MixtureSameFamily:
        """Return the mixture as a distribution."""
        parts = PowerSpherical(normalize(self.direction, dim=-1), self.log_concentration.exp())
        return MixtureSameFamily(Categorical(logits=self.logits), parts)

    def forward(self, x: Tensor) -> Tensor:
        return -self.law().log_prob(x).sum()

    @property
    def num_parameters(self) -> int:
        """Number of free parameters: directions have one fewer than entries, weights too."""
        return self.direction.numel() + self.logits.numel() - 1


def fit_mixture(
    x: Tensor,
    components: int,
    *,
    steps: int,
    seed: int,
    batch_size: int = 512,
    learning_rate: float = 0.03,
) -> PowerSphericalMixture:
    """Fit a mixture by stochastic maximum likelihood, started at data points.

    Args:
        x: Unit vectors, ``(n, d)``.
        components: Number of components, at most n.
        steps: Number of gradient steps.
        seed: Seed of the start and of the batches.
        batch_size: Rows in a batch, capped at n.
        learning_rate: Step size of Adam, which falls to zero along a half cosine.

    Raises:
        ValueError: If there are fewer points than components.
    """
    if not 1 <= components <= len(x):
        raise ValueError(
            f"fit_mixture: expected components between 1 and the {len(x)} points, got {components}"
        )
    generator = torch.Generator().manual_seed(seed)
    mixture = PowerSphericalMixture(x[torch.randperm(len(x), generator=generator)[:components]])
    fit(
        mixture,
        x,
        steps=steps,
        batch_size=min(batch_size, len(x)),
        learning_rate=learning_rate,
        seed=seed,
        progress=False,
    )
    return mixture


def _quadratic(x: Tensor, shape: Tensor) -> Tensor:
    return (x * torch.linalg.solve(shape, x.mT).mT).sum(-1)


def _log_area(ambient_dim: int) -> float:
    half = 0.5 * ambient_dim
    return math.log(2) + half * math.log(math.pi) - math.lgamma(half)
