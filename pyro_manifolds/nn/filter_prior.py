"""Priors on filters with parameters to learn."""

from __future__ import annotations

import math
from typing import cast

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistributionMixin
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
    parameters of the module, and ``state_dict`` saves them. :func:`fit_filter_prior` learns them
    from filters; so does any Pyro model that registers the module by ``pyro.module`` and has
    ``pyro.sample("w", prior(), obs=filters)`` in a plate.

    As prior of the layer ``"0"`` of a :class:`~pyro_manifolds.nn.bayesian.BayesianModule` it is

    - learned along with the net, ``{"0": prior}``, unless frozen, as it is after
      :func:`fit_filter_prior`: ``prior.requires_grad_(True)`` thaws it. Layers may share it;
    - fixed, ``{"0": prior.requires_grad_(False)()}``, or ``{"0": prior()}`` after that fit.
      Rescale what it returns, as ``scaled_to_fan_in(prior())`` does.

    Where ``amplitude`` or ``noise`` is given as a distribution, it is a site of that name instead,
    at each call: to be Bayesian about the scale of a prior. Then ``{"0": prior}`` serves a single
    layer; ``{nn.Conv2d: prior.forward}`` has sites for each layer, ``"0.weight/amplitude"``, but
    does not learn the parameters that are left.

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
        amplitude: Where the amplitude starts, a positive number, or its distribution.
        noise: Where the noise starts, a positive number, or its distribution.
        noise_shape: ``"white"``, ``"spectral"`` or ``"full"``.
        unit: Whether the filters have mean zero and norm one, as in ``KleinFilter``.
        num_nodes: Nodes along each angle, as in ``KleinFilter``. The default is good to 0.001
            for wrapped normals as narrow as those of a mixture may be, and amplitudes of up to
            four times the noise; ``None`` for what is enough for the amplitude.
        generator: Source of the locations to start from.

    Raises:
        TypeError: If amplitude or noise is neither a number nor a distribution.
        ValueError: If an argument is out of range, or on a call, if a second layer has the same
            sites.

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
        amplitude: TorchDistributionMixin | Tensor | float = 1.0,
        noise: TorchDistributionMixin | Tensor | float = 0.3,
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
        self._priors: dict[str, TorchDistributionMixin] = {}
        for name, value in (("amplitude", amplitude), ("noise", noise)):
            if isinstance(value, TorchDistributionMixin):
                self._priors[name] = value
                self.register_parameter(f"log_{name}", None)
            else:
                self.register_parameter(f"log_{name}", nn.Parameter(_positive(name, value).log()))
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

    def forward(self, parameter: Tensor | None = None) -> KleinFilter:
        """Return the distribution of filters.

        Args:
            parameter: Weights of the layer that it is the prior of, ``(..., k, k)``, if it is one:
                sites of vectorised particles get as many dimensions on the right.
        """
        rows = 0 if parameter is None else parameter.dim() - 2
        return KleinFilter(
            self.kernel_size,
            self._value("amplitude", rows),
            self._value("noise", rows),
            None if self.density is None else self.density(),
            unit=self.unit,
            noise_tril=self.noise_tril,
            num_nodes=self.num_nodes,
            validate_args=False,
        )

    def _value(self, name: str, rows: int) -> Tensor:
        if name not in self._priors:
            return cast(Tensor, getattr(self, f"log_{name}")).exp()
        value = _sample(name, self._priors[name])
        # As the prior of a net the function has these dimensions already, and the module has not.
        if 0 < value.dim() <= rows + 1:
            value = value[(..., *(None,) * rows)]
        return value


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


def _sample(name: str, prior: TorchDistributionMixin) -> Tensor:
    try:
        return pyro.sample(name, prior)
    except RuntimeError as error:
        if f"sites named '{name}'" not in str(error):
            raise
        raise ValueError(
            f"KleinFilterPrior: expected one call in a model where {name} is a site, got a second "
            "one; as prior of several layers give prior.forward, for sites of each layer's own"
        ) from error


def _positive(name: str, value: Tensor | float) -> Tensor:
    if not isinstance(value, Tensor | float | int):
        raise TypeError(
            f"KleinFilterPrior: expected {name} to be a positive number or a distribution, "
            f"got {value!r}"
        )
    number = torch.as_tensor(value, dtype=torch.get_default_dtype()).detach().clone()
    if number.dim() or not 0 < number < math.inf:
        raise ValueError(
            f"KleinFilterPrior: expected {name} to be a positive number or a distribution, "
            f"got {value}"
        )
    return number


def _check_prior(num_components: int, noise_shape: str) -> None:
    if noise_shape not in _SHAPES:
        raise ValueError(
            f"KleinFilterPrior: expected noise_shape among {', '.join(_SHAPES)}, "
            f"got {noise_shape!r}"
        )
    if num_components < 0:
        raise ValueError(f"KleinFilterPrior: expected num_components >= 0, got {num_components}")
