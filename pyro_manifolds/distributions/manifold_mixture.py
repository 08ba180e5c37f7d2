"""Mixtures of distributions on one manifold."""

from __future__ import annotations

from typing import NoReturn

import pyro.distributions as dist
from pyro.distributions import constraints
from pyro.distributions.constraints import Constraint

__all__ = ["ManifoldMixture"]


class ManifoldMixture(dist.MixtureSameFamily):
    r"""Mixture of distributions of one kind on one manifold.

    The density with respect to the Riemannian volume is :math:`\sum_k w_k\, p_k(y)`. It is
    ``MixtureSameFamily``, declared to live on the manifold of its components, so that guides and
    reparameterisations know what it is, and without its averages of coordinates, which are no
    means of points. Draws are not differentiable by the weights, and so ``has_rsample`` is false.

    Args:
        mixture_distribution: ``Categorical`` of the weights, ``batch_shape``.
        component_distribution: The components, ``batch_shape + (number,)``.
        validate_args: Whether to check arguments and values.

    Raises:
        ValueError: If the numbers of weights and of components differ.

    Example:
        >>> poles = torch.tensor([0.0, 3.0])
        >>> d = ManifoldMixture(dist.Categorical(torch.ones(2)), VonMises(poles, 2.0))
        >>> d.support
        on_manifold(Circle())
        >>> d.log_prob(torch.tensor([0.0, 3.0, 9.0]))
        tensor([-1.3365, -1.3365, -1.4113])
    """

    # A property, because the components tell.
    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Constraint:
        """Support of the components."""
        return self.component_distribution.support

    @property
    def mean(self) -> NoReturn:
        """No closed form."""
        raise NotImplementedError("ManifoldMixture: no closed form of the intrinsic mean")

    @property
    def variance(self) -> NoReturn:
        """No closed form."""
        raise NotImplementedError("ManifoldMixture: no closed form of the variance")
