"""The von Mises law on the circle."""

from __future__ import annotations

import math

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor
from torch.autograd import forward_ad
from torch.distributions.utils import broadcast_all
from torch.types import _size

from pyro_manifolds.manifolds import Circle
from pyro_manifolds.ops.angles import wrap
from pyro_manifolds.ops.von_mises import (
    circular_variance,
    implicit_gradient,
    kl_to_uniform,
    log_i0e,
)

__all__ = ["VonMises"]

# The acceptance test of the sampler rounds with an error of concentration * 2e-16; beyond this
# concentration the law is normal to 1e-8 and a draw is rescaled instead.
_LARGEST = 1e8


def _draw(concentration: Tensor) -> Tensor:
    """Draw one angle in [-pi, pi] around 0 for each float64 concentration."""
    # The rejection loop never ends on NaN or on values that round to infinity.
    safe = concentration.nan_to_num(1.0).clamp(min=1e-10, max=_LARGEST)
    base = torch.distributions.VonMises(torch.zeros_like(safe), safe, validate_args=False)
    return base.sample() * (safe / concentration).clamp(max=1.0).sqrt()


class VonMises(TorchDistribution):
    r"""Von Mises law on the circle, with reparameterised draws.

    The density with respect to arc length is

    .. math::
        p(t) = \frac{e^{\kappa \cos(t - \mu)}}{2 \pi I_0(\kappa)}

    at angles in radians: any finite angle has a density, draws lie in :math:`[-\pi, \pi)`. The law
    is uniform at :math:`\kappa = 0`. Draws come from the rejection sampler of Best and Fisher, and
    carry the pathwise gradient in both parameters that follows from the distribution function, not
    the biased one through the accepted proposal. ``log_prob`` keeps its precision in float32
    up to concentrations of 1e8.

    A vector of independent angles, a point of a torus, is ``VonMises(loc, concentration)
    .to_event(1)``.

    ``mean`` is the circular mean and ``variance`` the circular variance, one minus the mean
    resultant length.

    References:
        | Efficient Simulation of the von Mises Distribution (Best and Fisher, 1979)
        | Implicit Reparameterization Gradients (Figurnov, Mohamed and Mnih, 2018)
        | https://arxiv.org/abs/1805.08498

    Args:
        loc: Location :math:`\mu`, an angle in radians.
        concentration: Concentration :math:`\kappa \ge 0`; both shapes broadcast.
        validate_args: Whether to check arguments and values.

    Raises:
        ValueError: If the shapes do not broadcast, if the concentration has a last dimension of
            size one that ``loc`` has not, or if validation is on and an argument is out of range.

    Example:
        >>> d = VonMises(torch.tensor([0.0, 4.0]), 2.0)
        >>> d.batch_shape, d.event_shape
        (torch.Size([2]), torch.Size([]))
        >>> d.log_prob(torch.tensor(0.0))
        tensor([-0.6619, -3.9692])
        >>> d.mean
        tensor([ 0.0000, -2.2832])
    """

    arg_constraints = {"loc": constraints.real, "concentration": constraints.nonnegative}
    has_rsample = True

    def __init__(
        self,
        loc: Tensor | float,
        concentration: Tensor | float,
        *,
        validate_args: bool | None = None,
    ) -> None:
        _check_shapes(loc, concentration)
        self.loc, self.concentration = broadcast_all(loc, concentration)
        super().__init__(self.loc.shape, validate_args=validate_args)

    # A property, because the constraint of a manifold is made by the manifold.
    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """Constraint that accepts every finite angle."""
        return Circle().support

    def expand(self, batch_shape: _size, _instance: VonMises | None = None) -> VonMises:
        new = self._get_checked_instance(VonMises, _instance)
        batch_shape = Size(batch_shape)
        new.loc = self.loc.expand(batch_shape)
        new.concentration = self.concentration.expand(batch_shape)
        super(VonMises, new).__init__(batch_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """Circular mean, the canonical representative of ``loc``."""
        return wrap(self.loc)

    @property
    def mode(self) -> Tensor:
        """Angle of the highest density, the same as :attr:`mean`."""
        return wrap(self.loc)

    @property
    def variance(self) -> Tensor:
        """Circular variance, one minus the mean resultant length."""
        return circular_variance(self.concentration)

    def rsample(self, sample_shape: _size = Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        concentration = self.concentration.expand(shape)
        differentiated = _is_differentiated(concentration)
        with torch.no_grad():
            fixed = concentration.detach().double()
            angle = _draw(fixed)
            slope = implicit_gradient(angle, fixed) if differentiated else None
        if slope is not None:
            # Adds zero, and its derivative: the draw itself knows no parameter.
            angle = angle + slope * (concentration - concentration.detach())
        return wrap(self.loc + angle.to(self.loc.dtype))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        # kappa (cos d - 1) by the half angle, which does not cancel near the mode.
        sine = (0.5 * (value - self.loc)).sin()
        normaliser = math.log(2 * math.pi) + log_i0e(self.concentration)
        return -2 * self.concentration * sine.square() - normaliser

    def entropy(self) -> Tensor:
        return math.log(2 * math.pi) - kl_to_uniform(self.concentration)


def _is_differentiated(x: Tensor) -> bool:
    if forward_ad.unpack_dual(x).tangent is not None:
        return True
    return torch.is_grad_enabled() and x.requires_grad


def _check_shapes(loc: Tensor | float, concentration: Tensor | float) -> None:
    if not (isinstance(loc, Tensor) and isinstance(concentration, Tensor)):
        return
    shape, expected = tuple(concentration.shape), tuple(loc.shape)
    message = (
        f"VonMises: expected concentration of shape broadcastable to loc.shape = {expected}, "
        f"got {shape}"
    )
    # (B, 1) against (B,) would broadcast to (B, B) without a word.
    if expected and shape == (*expected, 1):
        raise ValueError(f"{message}; drop its last dimension.")
    try:
        torch.broadcast_shapes(shape, expected)
    except RuntimeError:
        raise ValueError(f"{message}.") from None
