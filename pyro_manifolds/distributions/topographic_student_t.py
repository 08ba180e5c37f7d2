"""Latents laid out on a map, whose neighbours are large together."""

from __future__ import annotations

import math
import warnings

import torch
from pyro.distributions import Normal, TorchDistribution, constraints
from torch import Size, Tensor
from torch.types import _size

from pyro_manifolds.distributions.arguments import as_tensors
from pyro_manifolds.distributions.neighborhoods import Neighborhood
from pyro_manifolds.distributions.topographic_density import exact_log_prob
from pyro_manifolds.ops.topographic import log_prob_given, log_prob_lower_bound
from pyro_manifolds.ops.topographic_estimate import LogProbEstimate, estimate_block_log_probs
from pyro_manifolds.ops.topographic_moments import (
    correlation,
    energy_correlation,
    inverse_moment,
    weighted_inverse_moment,
)

__all__ = ["TopographicStudentT"]


class TopographicStudentT(TorchDistribution):
    r"""Student-t latents on a map, dependent because neighbours share their denominators.

    With independent standard normal z and u and a neighbourhood :math:`W \ge 0`, draws are

    .. math::
        t = \sigma \frac{z + \mu}{\sqrt{W u^2}}

    elementwise, where ``loc`` is :math:`\mu` and ``scale`` is :math:`\sigma`. With weights of 0
    and 1, each entry is a Student-t variable, non-central for :math:`\mu \ne 0`, of as many
    degrees of freedom :math:`\nu` as its window has auxiliary variables. Densities are with
    respect to Lebesgue measure on arrays of the event shape of the neighbourhood. Draws are
    reparameterised.

    ``loc`` is a noncentrality, not a location: the mean is proportional to it, and so is the
    spread when it is large. It chooses between two models. At ``loc=0`` entries are uncorrelated
    and sparse, and neighbours have dependent energies, though weakly: see
    :meth:`energy_correlation`. At ``abs(loc)`` far above 1 the latent is a field of one sign,
    smooth over the map, near :math:`\mu / \sqrt{W u^2}`, and z hardly counts: see
    :meth:`correlation`. Published models start at 10 to 40.

    ``log_prob`` is exact for :class:`~pyro_manifolds.distributions.Groups` at every ``loc``, and
    for a :class:`~pyro_manifolds.distributions.Ring` with a window of one, of two up to a ``loc``
    of 35, and of three up to 2.6. Its error there is below 1e-9 and 1e-8 for each entry, in
    float64. (Time and memory for each ring of three grow with the fourth and fifth power of some
    24 to 40 nodes.) Elsewhere it raises an error that names what there is: a joint density with u
    as a site, by :class:`~pyro_manifolds.infer.reparam.TopographicReparam`,
    :meth:`log_prob_given`, :meth:`log_prob_estimate` and :meth:`log_prob_lower_bound`.

    At four degrees of freedom or fewer the pathwise gradients have infinite variance, and
    construction warns of it.

    References:
        | Topographic VAEs learn Equivariant Capsules (Keller and Welling, 2021)
        | https://arxiv.org/abs/2109.01394
        | Topographic Product Models Applied to Natural Scene Statistics
        | (Osindero, Welling and Hinton, 2006)

    Args:
        neighborhood: Which auxiliary variables each entry shares with others.
        loc: Noncentrality :math:`\mu`; its shape broadcasts with batch and event shape.
        scale: Scale :math:`\sigma > 0`; its shape broadcasts likewise.
        standardize: Whether to multiply draws by the root of the degrees of freedom, as a
            Student-t variable is usually defined. The published models do not.
        num_nodes: Nodes of the density on rings; by default as many as ``loc`` needs, which
            must then be a number where the code is compiled or mapped by ``vmap``.
        validate_args: Whether to check arguments and values.

    Raises:
        TypeError: If ``neighborhood`` is no neighbourhood.
        ValueError: If shapes do not broadcast, or if validation is on and an argument is out of
            range.

    Example:
        >>> from pyro_manifolds.distributions import Groups, Shifted, TopographicStudentT
        >>> d = TopographicStudentT(Groups(1, 3, 5), loc=2.0)
        >>> d.log_prob(torch.tensor([0.3, -0.7, 1.1]))
        tensor(-7.8375)
        >>> d.mean, d.variance
        (tensor([1.0638, 1.0638, 1.0638]), tensor([0.5349, 0.5349, 0.5349]))
        >>> window = Shifted.band(18, 18, 5, 1, num_capsules=18)
        >>> sequence = TopographicStudentT(window, loc=30.0)
        >>> sequence.event_shape, sequence.rsample((8,)).shape
        (torch.Size([18, 18, 18]), torch.Size([8, 18, 18, 18]))
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    has_rsample = True

    def __init__(
        self,
        neighborhood: Neighborhood,
        loc: Tensor | float = 0.0,
        scale: Tensor | float = 1.0,
        *,
        standardize: bool = False,
        num_nodes: int | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(neighborhood, Neighborhood):
            raise TypeError(
                "TopographicStudentT: expected neighborhood to be a Neighborhood, got "
                f"{type(neighborhood).__name__}"
            )
        self.neighborhood, self.standardize, self.num_nodes = neighborhood, standardize, num_nodes
        # What is known of the location without a look at data.
        self._fixed_loc = None if isinstance(loc, Tensor) else abs(float(loc))
        if isinstance(loc, Tensor) or not isinstance(scale, Tensor):
            loc, scale = as_tensors(loc, scale)
        else:
            scale, loc = as_tensors(scale, loc)
        shape = _joint_shape(neighborhood, loc.shape, scale.shape)
        self.loc, self.scale = loc.expand(shape), scale.expand(shape)
        batch = shape[: len(shape) - len(neighborhood.event_shape)]
        super().__init__(batch, neighborhood.event_shape, validate_args=validate_args)
        if self._validate_args:
            _warn_of_infinite_variance(neighborhood)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> constraints.Constraint:
        """Constraint of real arrays."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(
        self, batch_shape: _size, _instance: TopographicStudentT | None = None
    ) -> TopographicStudentT:
        new = self._get_checked_instance(TopographicStudentT, _instance)
        shape = Size(batch_shape) + self.event_shape
        new.neighborhood, new.standardize = self.neighborhood, self.standardize
        new.num_nodes, new._fixed_loc = self.num_nodes, self._fixed_loc
        new.loc, new.scale = self.loc.expand(shape), self.scale.expand(shape)
        super(TopographicStudentT, new).__init__(
            Size(batch_shape), self.event_shape, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: _size = Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        noise_shape = shape[: len(shape) - len(self.event_shape)] + self.neighborhood.noise_shape
        z = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        u = torch.randn(noise_shape, dtype=self.loc.dtype, device=self.loc.device)
        return (z + self.loc) * self._spread(u)

    def given(self, u: Tensor) -> Normal:
        """Return the distribution of the latent given auxiliary variables, independent normals.

        Args:
            u: Auxiliary variables ``[..., *noise_shape]`` of the neighbourhood. Their signs do
                not matter.
        """
        spread = self._spread(u)
        return Normal(self.loc * spread, spread, validate_args=False).to_event(
            len(self.event_shape)
        )

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        unit = self._unit()
        t = value / unit
        exact = exact_log_prob(
            self.neighborhood, t, self.loc, fixed_loc=self._fixed_loc, num_nodes=self.num_nodes
        )
        return exact - self._event_sum(unit.log())

    def log_prob_given(self, value: Tensor, u: Tensor) -> Tensor:
        """Return the log density given auxiliary variables.

        Args:
            value: Values of the latent.
            u: Auxiliary variables ``[..., *noise_shape]`` of the neighbourhood.
        """
        if self._validate_args:
            self._validate_sample(value)
        unit, v = self._unit(), self._sums(u)
        return self._event_sum(log_prob_given(value / unit, self.loc, v) - unit.log())

    def log_prob_estimate(self, value: Tensor, num_samples: int = 1000) -> LogProbEstimate:
        """Return an importance estimate of the log density, for any neighbourhood.

        Blocks that share no auxiliary variable (capsules, groups, and of course the cells of a
        batch) are estimated apart, and the results are added; the effective sample size is the
        smallest one of them. For blocks of several hundred coupled entries no affordable number
        of samples suffices: look at the effective sample size, and rather keep u as a site.

        Args:
            value: Values of the latent.
            num_samples: Number of samples of u, at least 2.

        Raises:
            ValueError: If the number of samples is too small, or if validation is on and a value
                is not in the support.

        Example:
            >>> from pyro_manifolds.distributions import Shifted, TopographicStudentT
            >>> d = TopographicStudentT(Shifted(6, 4, 2, num_capsules=2), loc=1.0)
            >>> value, effective = d.log_prob_estimate(d.sample((5,)), num_samples=100)
            >>> value.shape, effective.shape
            (torch.Size([5]), torch.Size([5]))
        """
        if num_samples < 2:
            raise ValueError(
                f"TopographicStudentT: expected num_samples of at least 2, got {num_samples}"
            )
        if self._validate_args:
            self._validate_sample(value)
        unit, near = self._unit(), self.neighborhood
        t, loc = torch.broadcast_tensors(value / unit, self.loc)
        logs, effective = estimate_block_log_probs(
            t, loc, near.forward, near.transpose, near.block_sums, near.dof.to(t), num_samples
        )
        value = logs.sum(-1) - self._event_sum(unit.log())
        return LogProbEstimate(value, effective.amin(-1))

    def log_prob_lower_bound(self, value: Tensor) -> Tensor:
        """Return a lower bound of the log density, for any neighbourhood.

        At ``loc=0`` it is some 0.4 to 0.7 nats below for each entry, and lower the larger
        ``abs(loc)`` is: a surrogate, not a density.
        """
        if self._validate_args:
            self._validate_sample(value)
        unit, near = self._unit(), self.neighborhood
        t, dof = value / unit, near.dof.to(self.loc)
        bound = log_prob_lower_bound(
            t, self.loc, near.forward, near.transpose, dof, len(self.event_shape)
        )
        return bound - self._event_sum(unit.log())

    @property
    def mean(self) -> Tensor:
        """Mean, NaN for an entry of one degree of freedom."""
        mean = self.loc * self._unit() * self._inverse_moment(0.5)
        return mean.where(self.neighborhood.num_terms.to(mean) > 1, math.nan)

    @property
    def variance(self) -> Tensor:
        """Variance; infinite at two degrees of freedom, and NaN below, where there is no mean."""
        second = (1 + self.loc.square()) * self._inverse_moment(1.0)
        variance = second - (self.loc * self._inverse_moment(0.5)).square()
        terms = self.neighborhood.num_terms.to(variance)
        variance = variance.where(terms > 2, math.inf).where(terms > 1, math.nan)
        return self._unit().square() * variance

    def correlation(self) -> Tensor:
        """Return correlations of entries, ``batch_shape + (n, n)`` with n flattened entries.

        They are zero at ``loc=0``, and NaN at two degrees of freedom or fewer.

        Raises:
            NotImplementedError: If the neighbourhood has other weights than 0 and 1.

        Example:
            >>> from pyro_manifolds.distributions import Ring, TopographicStudentT
            >>> TopographicStudentT(Ring(9, 5), loc=10.0).correlation()[0, :5]
            tensor([1.0000, 0.6583, 0.4451, 0.2720, 0.1262])
        """
        return correlation(*self._windows())

    def energy_correlation(self) -> Tensor:
        """Return correlations of squared entries, ``batch_shape + (n, n)``.

        They are NaN at four degrees of freedom or fewer, where squares have no variance.

        Raises:
            NotImplementedError: If the neighbourhood has other weights than 0 and 1.

        Example:
            >>> from pyro_manifolds.distributions import Ring, TopographicStudentT
            >>> TopographicStudentT(Ring(9, 5)).energy_correlation()[0, :5]
            tensor([1.0000, 0.1164, 0.0641, 0.0343, 0.0144])
        """
        return energy_correlation(*self._windows())

    def _windows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return locations, degrees of freedom and numbers of shared terms, flat."""
        near = self.neighborhood
        if not near.is_binary:
            raise NotImplementedError(
                f"TopographicStudentT: expected weights of 0 and 1 for correlations, got {near}; "
                "estimate them from draws"
            )
        loc = self.loc.flatten(len(self.batch_shape))
        overlap = near.overlap(loc.dtype, loc.device)
        return loc, overlap.diagonal(), overlap

    def _inverse_moment(self, power: float) -> Tensor:
        """Return the mean of v to minus a power, of event shape."""
        near = self.neighborhood
        if near.is_binary:
            return inverse_moment(near.dof.to(self.loc), power)
        weights = near.matrix(self.loc.dtype, self.loc.device)
        return weighted_inverse_moment(weights, power).reshape(self.event_shape)

    def _unit(self) -> Tensor:
        """Return what the ratio of z + loc to the root of v is multiplied by."""
        if not self.standardize:
            return self.scale
        return self.scale * self.neighborhood.dof.to(self.scale).sqrt()

    def _sums(self, u: Tensor) -> Tensor:
        # Squares below the least number of the dtype count as that: the root stays finite.
        return self.neighborhood.forward(u * u).clamp(min=torch.finfo(u.dtype).tiny)

    def _spread(self, u: Tensor) -> Tensor:
        return self._unit() * self._sums(u).rsqrt()

    def _event_sum(self, x: Tensor) -> Tensor:
        return x.flatten(x.dim() - len(self.event_shape)).sum(-1)


def _joint_shape(near: Neighborhood, loc: Size, scale: Size) -> Size:
    event = near.event_shape
    try:
        shape = torch.broadcast_shapes(loc, scale, event)
    except RuntimeError:
        shape = Size()
    if shape[len(shape) - len(event) :] != event:
        raise ValueError(
            "TopographicStudentT: expected shapes of loc and scale that broadcast with each other "
            f"and with the event shape {tuple(event)} of {near}, got {tuple(loc)} and "
            f"{tuple(scale)}"
        )
    return shape


def _warn_of_infinite_variance(near: Neighborhood) -> None:
    least = int(near.num_terms.min())
    if least > 4:
        return
    warnings.warn(
        f"TopographicStudentT: expected dof of more than 4, got {least} in {near}: pathwise "
        "gradients have infinite variance. Use a larger neighbourhood, or ignore this warning "
        "where only densities are needed.",
        stacklevel=3,
    )
