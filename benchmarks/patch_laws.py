"""Laws of the directions of patches: mixtures of angular central Gaussians, round K or free."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyro_manifolds.datasets import dct_basis, patch_to_sphere
from pyro_manifolds.demo.baselines import angular_gaussian_log_prob, fit_angular_gaussian
from pyro_manifolds.nn import KleinMixture
from pyro_manifolds.ops.filters import klein_filters

__all__ = [
    "AngularGaussian",
    "CentralGaussian",
    "FourierDensity",
    "FreeSpikes",
    "FullMixture",
    "KleinDirections",
    "Uniform",
    "klein_nodes",
    "log_area",
]

NODES = 24  # along half a turn of each angle: an excess of 45 has a width of 0.15


def log_area(dim: int) -> float:
    """Logarithm of the area of the unit sphere of ``dim`` coordinates."""
    return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)


def klein_nodes(number: int = NODES) -> Tensor:
    """Points of half of the Klein bottle; filters of the other half are minus those."""
    steps = math.pi / number * torch.arange(number)
    return torch.cartesian_prod(steps, steps)


class Shape(nn.Module):
    """Covariance of the noise, up to its scale, in coordinates of ``dct_basis``.

    ``"white"`` has no parameter, ``"spectral"`` one, the exponent of the eigenvalues of the
    Laplacian, and ``"full"`` all but the scale.
    """

    eigenvalues: Tensor

    def __init__(self, kind: str, kernel_size: int) -> None:
        super().__init__()
        self.kind, self.dim = kind, kernel_size**2 - 1
        values = dct_basis(kernel_size).square().sum(0).reciprocal()
        self.register_buffer("eigenvalues", (values / values.log().mean().exp()).float())
        if kind == "spectral":
            self.exponent = nn.Parameter(torch.zeros(()))
        elif kind == "full":
            self.log_diagonal = nn.Parameter(torch.zeros(self.dim))
            self.below = nn.Parameter(torch.zeros(self.dim, self.dim))

    def whiten(self, x: Tensor) -> Tensor:
        """Return coordinates in which the noise is white."""
        if self.kind == "white":
            return x
        if self.kind == "spectral":
            return x * self.eigenvalues.pow(0.5 * self.exponent)
        return x @ (self.below.tril(-1) + self.log_diagonal.exp().diag()).mT

    @torch.no_grad()
    def start_at(self, train: Tensor) -> None:
        """Start a full shape at that of all data."""
        white = _whitening(train)
        self.log_diagonal.copy_(white.diagonal().log())
        self.below.copy_(white)

    def log_det(self) -> Tensor:
        """Logarithm of the determinant of :meth:`whiten`."""
        return self.log_diagonal.sum() if self.kind == "full" else self.eigenvalues.new_zeros(())

    @property
    def num_parameters(self) -> int:
        counts = {"white": 0, "spectral": 1, "full": self.dim * (self.dim + 1) // 2 - 1}
        return counts[self.kind]


class _RankOne(nn.Module):
    r"""Mixture of central Gaussians of shape :math:`\Sigma + c_j f_j f_j^\top`, projected.

    ``excess`` is :math:`c_j` in units in which the filter, once white, has the length one.
    """

    def __init__(self, kernel_size: int, shape: str, levels: int = 1) -> None:
        super().__init__()
        self.dim = kernel_size**2 - 1
        self.shape = Shape(shape, kernel_size)
        # Log-excesses are spread by levels, at random: amplitudes of several sizes.
        spread = torch.arange(1.0, levels)
        self.level_steps = nn.Parameter(spread)
        self.level_logits = nn.Parameter(torch.zeros(levels if levels > 1 else 0))

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return filters, ``[m, d]``, log-weights and the logarithms of the excesses."""
        raise NotImplementedError

    def log_prob(self, x: Tensor) -> Tensor:
        filters, log_weights, log_excess = self.parts()
        y, f = self.shape.whiten(x), self.shape.whiten(filters)
        square = y.square().sum(-1)
        cosines = (y @ nn.functional.normalize(f, dim=-1).mT).square() / square.unsqueeze(-1)
        mixed = self._mix(cosines, log_weights, log_excess)
        if len(self.level_logits):
            levels = [mixed]
            for step in self.level_steps:
                levels.append(self._mix(cosines, log_weights, log_excess + step))
            mixed = (torch.stack(levels, -1) + self.level_logits.log_softmax(-1)).logsumexp(-1)
        return mixed - 0.5 * self.dim * square.log() + self.shape.log_det() - log_area(self.dim)

    def _mix(self, cosines: Tensor, log_weights: Tensor, log_excess: Tensor) -> Tensor:
        share = log_excess.sigmoid()  # c / (1 + c)
        weights = log_weights - 0.5 * nn.functional.softplus(log_excess)
        half = cosines.new_tensor(-0.5 * self.dim)
        return torch.addcmul(weights, torch.log1p(-share * cosines), half).logsumexp(-1)

    @property
    def num_parameters(self) -> int:
        """Number of free parameters, of the shape and the levels at least."""
        return self.shape.num_parameters + 2 * len(self.level_steps)


class KleinDirections(_RankOne):
    """Directions of noisy filters of the Klein bottle, or of the circle of edges in it.

    Args:
        kernel_size: Side of the patches.
        density: Module for the density of points; uniform if left out.
        shape: Of the noise.
        excess: Module for the logarithm of the excess, up to a constant, at each point.
        circle: Whether points are on the circle only.
    """

    nodes: Tensor
    filters: Tensor

    def __init__(
        self,
        kernel_size: int,
        density: nn.Module | None = None,
        shape: str = "white",
        excess: FourierDensity | None = None,
        *,
        levels: int = 1,
        circle: bool = False,
    ) -> None:
        super().__init__(kernel_size, shape, levels)
        self.kernel_size, self.circle = kernel_size, circle
        self.density, self.excess = density, excess
        self.log_excess = nn.Parameter(torch.tensor(3.0))
        self.use_nodes(NODES)

    def use_nodes(self, number: int) -> None:
        """Set the number of nodes of the quadrature along half a turn of each angle."""
        nodes = klein_nodes(number)
        if self.circle:
            angles = math.pi / (4 * number) * torch.arange(4 * number)
            nodes = torch.stack([angles, torch.full_like(angles, math.pi / 2)], -1)
        self.register_buffer("nodes", nodes, persistent=False)
        filters = patch_to_sphere(klein_filters(nodes, self.kernel_size))
        self.register_buffer("filters", filters, persistent=False)

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        log_weights = self.nodes.new_zeros(len(self.nodes))
        if isinstance(self.density, FourierDensity):
            log_weights = self.density(self.nodes)
        elif self.density is not None:
            law = self.density()
            other = self.nodes + self.nodes.new_tensor([0.0, math.pi])
            log_weights = torch.logaddexp(law.log_prob(self.nodes), law.log_prob(other))
        log_excess = self.log_excess.expand(len(self.nodes))
        if self.excess is not None:
            log_excess = log_excess + self.excess(self.nodes)
        return self.filters, log_weights.log_softmax(-1), log_excess

    @property
    def num_parameters(self) -> int:
        parts = [part for part in (self.density, self.excess) if part is not None]
        learned = sum(p.numel() for part in parts for p in part.parameters())
        return super().num_parameters + 1 + learned - isinstance(self.density, KleinMixture)


class FourierDensity(nn.Module):
    """Trigonometric polynomial on the Klein bottle, the same for a filter and for minus it.

    Its waves are those of the torus that the glide reflection and the half turn of the second
    angle leave alone: exp(i m t1) times cos(n t2) for even m and sin(n t2) for odd m, with n even.
    """

    def __init__(self, first: int, second: int) -> None:
        super().__init__()
        waves = [
            (m, n, kind)
            for m in range(first + 1)
            for n in range(0, second + 1, 2)
            for kind in range(2)
            if not (m == 0 and kind) and (m, n) != (0, 0) and not (m % 2 and n == 0)
        ]
        self.waves = waves
        self.coefficients = nn.Parameter(torch.zeros(len(waves)))

    def forward(self, points: Tensor) -> Tensor:
        t1, t2 = points.unbind(-1)
        columns = [
            (m * t1 - kind * math.pi / 2).cos() * ((n * t2).sin() if m % 2 else (n * t2).cos())
            for m, n, kind in self.waves
        ]
        return torch.stack(columns, -1) @ self.coefficients


class FreeSpikes(_RankOne):
    """Mixture of central Gaussians, each stretched along one free direction.

    Args:
        kernel_size: Side of the patches.
        start: Unit vectors to start the directions at, ``[m, d]``.
        shape: Of the noise, the same for all.
        shared: Whether all have the same excess.
    """

    def __init__(
        self, kernel_size: int, start: Tensor, shape: str = "white", *, shared: bool = False
    ) -> None:
        super().__init__(kernel_size, shape)
        self.directions = nn.Parameter(start.clone())
        self.logits = nn.Parameter(torch.zeros(len(start)))
        self.log_excess = nn.Parameter(torch.full((1 if shared else len(start),), 2.5))

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        log_excess = self.log_excess.expand(len(self.logits))
        return self.directions, self.logits.log_softmax(-1), log_excess

    @property
    def num_parameters(self) -> int:
        free = len(self.logits) * self.dim - 1 + self.log_excess.numel()
        return super().num_parameters + free


class CentralGaussian(_RankOne):
    """One angular central Gaussian of the given shape."""

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        zero = self.shape.eigenvalues.new_zeros(1)
        return self.shape.eigenvalues.new_ones(1, self.dim), zero, zero - 40.0


class FullMixture(nn.Module):
    """Mixture of angular central Gaussians, each of a full shape.

    Args:
        train: Directions; the components start at the shape of all of them.
        start: Directions along which the components are stretched at the start, ``[m, d]``.
    """

    def __init__(self, train: Tensor, start: Tensor) -> None:
        super().__init__()
        number, self.dim = start.shape
        white = _whitening(train)
        along = nn.functional.normalize(start @ white.mT, dim=-1)
        # The whitening of a shape with an excess of 8 along the start: 1 - (1 - 1/3) f f'.
        stretch = along.unsqueeze(-1) * along.unsqueeze(-2)
        self.whiten = nn.Parameter((torch.eye(self.dim) - 2 / 3 * stretch) @ white)
        self.logits = nn.Parameter(torch.zeros(number))

    def log_prob(self, x: Tensor) -> Tensor:
        square = torch.einsum("jab,nb->nja", self.whiten, x).square().sum(-1)
        log_det = torch.linalg.slogdet(self.whiten).logabsdet
        terms = self.logits.log_softmax(-1) + log_det - 0.5 * self.dim * square.log()
        return terms.logsumexp(-1) - log_area(self.dim)

    @property
    def num_parameters(self) -> int:
        """Rotations of the white coordinates, and scales, do not count."""
        return len(self.logits) * self.dim * (self.dim + 1) // 2 - 1


def _whitening(train: Tensor) -> Tensor:
    """Return the lower triangular map in whose coordinates Tyler's shape is white."""
    tril = torch.linalg.cholesky(fit_angular_gaussian(train, steps=60))
    return torch.linalg.inv(tril).to(train.dtype)


class AngularGaussian(nn.Module):
    """One angular central Gaussian of full shape, fitted by Tyler's fixed point."""

    def __init__(self, train: Tensor) -> None:
        super().__init__()
        self.covariance = fit_angular_gaussian(train)
        self.num_parameters = train.shape[-1] * (train.shape[-1] + 1) // 2 - 1

    def log_prob(self, x: Tensor) -> Tensor:
        return angular_gaussian_log_prob(x, self.covariance)


class Uniform(nn.Module):
    """Uniform law of the sphere."""

    num_parameters = 0

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.dim = kernel_size**2 - 1

    def log_prob(self, x: Tensor) -> Tensor:
        return x.new_full(x.shape[:-1], -log_area(self.dim))
