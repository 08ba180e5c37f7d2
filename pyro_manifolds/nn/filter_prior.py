"""Priors on filters with parameters to learn."""

from __future__ import annotations

import math
from typing import cast

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor, nn
from torch.distributions import transform_to

from pyro_manifolds.datasets import dct_basis
from pyro_manifolds.distributions import KleinFilter, ManifoldMixture, WrappedNormal
from pyro_manifolds.manifolds import KleinBottle
from pyro_manifolds.ops.filters import check_kernel_size

__all__ = ["KleinFilterPrior", "KleinMixture", "spectrum"]

_SHAPES = ("white", "spectral", "full")


class KleinMixture(nn.Module):
    """Mixture of wrapped normals on the Klein bottle, with free parameters.

    Args:
        num_components: Number of wrapped normals, at least 1.
        min_scale: Lower bound of their scales in radians, where a quadrature still sees them.
        generator: Source of the locations to start from.

    Raises:
        ValueError: If ``num_components`` is below 1 or ``min_scale`` out of range.

    Example:
        >>> from pyro_manifolds.nn import KleinMixture
        >>> KleinMixture(4)().log_prob(torch.zeros(2)).shape
        torch.Size([])
    """

    def __init__(
        self,
        num_components: int,
        *,
        min_scale: float = 0.1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if num_components < 1 or not 0 < min_scale < 0.5:
            raise ValueError(
                "KleinMixture: expected num_components >= 1 and min_scale in (0, 0.5), "
                f"got {num_components} and {min_scale}"
            )
        self.min_scale = min_scale
        # As wide as a component's share of the area, but no wider than a mixture of few.
        share = min(0.5, math.sqrt(KleinBottle.volume / num_components) / 2)
        loc = torch.rand(num_components, 2, generator=generator)
        self.loc = nn.Parameter(loc * torch.tensor([math.pi, 2 * math.pi]))
        self.log_scale = nn.Parameter(torch.full((num_components, 2), math.log(share)))
        self.logits = nn.Parameter(torch.zeros(num_components))

    def forward(self) -> ManifoldMixture:
        scale = self.min_scale + self.log_scale.exp()
        parts = WrappedNormal(KleinBottle(), self.loc, scale, validate_args=False)
        weights = dist.Categorical(logits=self.logits, validate_args=False)
        return ManifoldMixture(weights, parts, validate_args=False)


class KleinFilterPrior(nn.Module):
    r"""Learned :class:`~pyro_manifolds.distributions.KleinFilter`: called, it returns one.

    Amplitude, noise, the density of points on the Klein bottle and the shape of the noise are
    parameters of the module. They are learned by :func:`fit_filter_prior`; in any Pyro model that
    has ``pyro.sample("w", prior(), obs=filters)`` in a plate; or along with a net whose weights
    have the prior ``prior()`` or ``prior().rescale(...)``. ``state_dict`` saves them. Where
    ``amplitude`` or ``noise`` is given as a distribution, it is a site of that name instead, at
    each call: to be Bayesian about the scale of a prior.

    The noise is ``"white"``; or ``"full"``, with any covariance; or ``"spectral"``, with two
    parameters: the cosines of :func:`~pyro_manifolds.datasets.dct_basis` are independent, with
    variance :math:`\sigma^2 \lambda^{-\beta}` for the eigenvalue :math:`\lambda` of the Laplacian
    of the grid (over the geometric mean of all), and :math:`\sigma^2 r^2` for the mean. In
    photographs coarse detail is stronger than fine detail.

    Args:
        kernel_size: Side of the filters in pixels, odd and at least 3.
        num_components: Number of wrapped normals in the density of points; 0 for the uniform one.
        density: Module that returns a distribution on ``KleinBottle()``, such as a flow, in place
            of the mixture.
        amplitude: Where the amplitude starts, or its distribution.
        noise: Where the noise starts, or its distribution.
        noise_shape: ``"white"``, ``"spectral"`` or ``"full"``.
        unit: Whether the filters have mean zero and norm one, as in ``KleinFilter``.
        num_nodes: Nodes along each angle, as in ``KleinFilter``. The default is good to 0.001
            for wrapped normals as narrow as those of a mixture may be, and amplitudes of up to
            four times the noise; ``None`` for what is enough for the amplitude.
        generator: Source of the locations to start from.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> from pyro_manifolds.nn import KleinFilterPrior
        >>> prior = KleinFilterPrior(3, 4)
        >>> prior().expand([16, 1]).to_event(2).sample().shape
        torch.Size([16, 1, 3, 3])
    """

    _basis: Tensor
    _eigenvalues: Tensor

    def __init__(
        self,
        kernel_size: int,
        num_components: int = 8,
        *,
        density: nn.Module | None = None,
        amplitude: TorchDistribution | float = 1.0,
        noise: TorchDistribution | float = 0.3,
        noise_shape: str = "white",
        unit: bool = True,
        num_nodes: int | None = 64,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_kernel_size("KleinFilterPrior", kernel_size)
        _check_prior(num_components, noise_shape)
        if density is None and num_components:
            density = KleinMixture(num_components, generator=generator)
        self.kernel_size, self.noise_shape = kernel_size, noise_shape
        self.unit, self.num_nodes, self.density = unit, num_nodes, density
        self._priors: dict[str, TorchDistribution] = {}
        for name, value in (("amplitude", amplitude), ("noise", noise)):
            if isinstance(value, float | int):
                self.register_parameter(f"log_{name}", nn.Parameter(torch.tensor(value).log()))
            else:
                self._priors[name] = value
                self.register_parameter(f"log_{name}", None)
        if noise_shape == "spectral":
            self.exponent = nn.Parameter(torch.tensor(0.0))
            self.log_mean_ratio = nn.Parameter(torch.tensor(0.0))
            basis, values = spectrum(kernel_size)
            self.register_buffer("_basis", basis, persistent=False)
            self.register_buffer("_eigenvalues", values, persistent=False)
        elif noise_shape == "full":
            self.raw_tril = nn.Parameter(torch.zeros(kernel_size**2, kernel_size**2))

    @property
    def noise_tril(self) -> Tensor | None:
        """Cholesky factor of the covariance of the noise, over the square of its scale."""
        if self.noise_shape == "white":
            return None
        if self.noise_shape == "full":
            return transform_to(constraints.lower_cholesky)(self.raw_tril)
        mean = (2 * self.log_mean_ratio).exp().unsqueeze(0)
        variances = torch.cat([mean, self._eigenvalues.pow(-self.exponent)])
        return torch.linalg.cholesky((self._basis * variances) @ self._basis.mT)

    @property
    def num_parameters(self) -> int:
        """Number of free parameters: weights sum to one, and a full shape has a scale already."""
        total = sum(p.numel() for p in self.parameters())
        if self.noise_shape == "full":
            size = self.kernel_size**2
            total -= size * (size - 1) // 2 + 1
        return total - isinstance(self.density, KleinMixture)

    def forward(self) -> KleinFilter:
        return KleinFilter(
            self.kernel_size,
            self._value("amplitude"),
            self._value("noise"),
            None if self.density is None else self.density(),
            unit=self.unit,
            noise_tril=self.noise_tril,
            num_nodes=self.num_nodes,
            validate_args=False,
        )

    def _value(self, name: str) -> Tensor:
        if name in self._priors:
            return pyro.sample(name, self._priors[name])
        return cast(Tensor, getattr(self, f"log_{name}")).exp()


def spectrum(size: int) -> tuple[Tensor, Tensor]:
    """Return an orthonormal basis with the mean first, and the other eigenvalues of the grid.

    Eigenvalues are over their geometric mean, so that the noise keeps its size.
    """
    cosines = dct_basis(size)
    values = cosines.square().sum(0).reciprocal()  # columns have the norm one for the Laplacian
    mean = cosines.new_full((size**2, 1), 1 / size)
    basis = torch.cat([mean, cosines * values.sqrt()], -1)
    values = values / values.log().mean().exp()
    dtype = torch.get_default_dtype()
    return basis.to(dtype), values.to(dtype)


def _check_prior(num_components: int, noise_shape: str) -> None:
    if noise_shape not in _SHAPES:
        raise ValueError(
            f"KleinFilterPrior: expected noise_shape among {', '.join(_SHAPES)}, "
            f"got {noise_shape!r}"
        )
    if num_components < 0:
        raise ValueError(f"KleinFilterPrior: expected num_components >= 0, got {num_components}")
