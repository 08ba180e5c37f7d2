"""The spherical Cauchy law on spheres of any dimension."""

from __future__ import annotations

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.types import _size

from pyro_manifolds.distributions.rotational import RotationalDistribution
from pyro_manifolds.manifolds.spherical import log_sphere_volume
from pyro_manifolds.ops.polar import normal_polar_point
from pyro_manifolds.ops.spherical_cauchy import kl_to_uniform, mean_resultant

__all__ = ["SphericalCauchy"]


class SphericalCauchy(RotationalDistribution):
    r"""Spherical Cauchy law on the unit sphere of :math:`\mathbb{R}^d`.

    For a unit vector :math:`\mu` and :math:`0 \le \rho < 1`, the density with respect to the
    surface measure is

    .. math::
        p(x) = \frac{1}{|S^{d-1}|} \left( \frac{1 - \rho^2}{|x - \rho\mu|^2} \right)^{d-1}

    in ambient coordinates: values are unit vectors. The law is uniform at :math:`\rho = 0`. Its
    tails are heavy: the density falls by a power of the distance, and is positive everywhere,
    :math:`-\mu` included. It is what a Moebius map of the ball makes of the uniform law, which
    gives exact, reparameterised draws and the divergence within the family in closed form;
    :math:`\rho\mu` is a point of hyperbolic space, at the distance :math:`r` from the centre with
    :math:`\rho = \tanh(r / 2)`, a way to learn concentrations without bounds. Near one,
    concentrations are resolved as well as their dtype resolves :math:`1 - \rho`: to 6e-8 in
    float32. On the circle it is the wrapped Cauchy law.

    References:
        | Some properties of a Cauchy family on the sphere derived from the Moebius transformations
          (Kato and McCullagh, 2020), arXiv 1510.07679
        | Hyperspherical Variational Autoencoders Using Efficient Spherical Cauchy Distribution
          (Sablica and Hornik, 2025), arXiv 2506.21278

    Args:
        loc: Location :math:`\mu`, a unit vector, shape ``batch_shape + (d,)`` with d at least 2.
        concentration: Concentration :math:`\rho` in [0, 1), of shape broadcastable to the batch.
        validate_args: Whether to check arguments and values.

    Raises:
        ValueError: If d is less than 2, if the shapes do not broadcast, if the concentration has
            a last dimension of size one that the batch has not, or if validation is on and
            ``loc`` is not of unit norm or the concentration out of range.

    Example:
        >>> d = SphericalCauchy(torch.eye(3), torch.tensor(0.5))
        >>> d.batch_shape, d.event_shape
        (torch.Size([3]), torch.Size([3]))
        >>> d.log_prob(torch.tensor([1.0, 0.0, 0.0]))
        tensor([-0.3338, -3.5527, -3.5527])
        >>> d.entropy()
        tensor([1.7845, 1.7845, 1.7845])
    """

    arg_constraints = {
        "loc": constraints.sphere,
        "concentration": constraints.half_open_interval(0.0, 1.0),
    }

    @property
    def mean_resultant(self) -> Tensor:
        return mean_resultant(self.concentration, self.ambient_dim)

    def kl_to_uniform(self) -> Tensor:
        return kl_to_uniform(self.concentration, self.ambient_dim)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        rho = self.concentration.expand(shape[:-1])
        # (1 - t) / 2 and (1 + t) / 2 of a uniform vector are shares of two gamma variables, the
        # first of which is half the square of the normal. The Moebius map scales their ratio, the
        # square of tan(angle / 2).
        far = torch._standard_gamma(torch.full_like(rho, 0.5 * (shape[-1] - 1)))
        normal = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return normal_polar_point(self.loc, ((1 + rho) / (1 - rho)).square() * far, normal)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        rho, gap = self.concentration, 1 - self.concentration
        # |x - rho mu|^2 without cancellation.
        square = gap.square() + rho * (value - self.loc).square().sum(-1)
        height = -(square / (gap * (1 + rho))).log()
        dim = self.ambient_dim - 1
        return dim * height - log_sphere_volume(dim)
