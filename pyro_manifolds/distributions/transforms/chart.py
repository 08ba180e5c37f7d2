"""Charts of whole manifolds: bijections with the space of real vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_manifolds.distributions.transforms.unembed import Unembed
from pyro_manifolds.manifolds import Euclidean, HyperbolicSpace, Manifold, Product

__all__ = ["Chart", "has_chart"]


def has_chart(manifold: Manifold) -> bool:
    r"""Tell whether ``unembed`` is a bijection from :math:`\mathbb{R}^n` onto the manifold.

    So it is on Euclidean and hyperbolic space and on their products. On such a manifold every
    algorithm of Pyro works as it is, without reparameterisation.

    Example:
        >>> from pyro_manifolds.distributions.transforms import has_chart
        >>> has_chart(Hyperboloid(2)), has_chart(Circle())
        (True, False)
    """
    if isinstance(manifold, Product):
        return all(map(has_chart, manifold.manifolds))
    return isinstance(manifold, Euclidean | HyperbolicSpace)


class Chart(Unembed):
    r"""The bijection ``unembed`` from :math:`\mathbb{R}^n` onto a manifold that has one.

    Its log-determinant is that of the Riemannian volume, to which densities refer. This is
    ``biject_to(manifold.support)``.

    Args:
        manifold: A manifold for which :func:`has_chart` holds.

    Raises:
        ValueError: If there is no such bijection.

    Example:
        >>> from pyro_manifolds.distributions.transforms import Chart
        >>> chart = Chart(Hyperboloid(2))
        >>> x = torch.tensor([0.6, -0.2])
        >>> chart.inv(chart(x)), chart.log_abs_det_jacobian(x, chart(x))
        (tensor([ 0.6000, -0.2000]), tensor(0.0658))
    """

    bijective = True

    def __init__(self, manifold: Manifold, cache_size: int = 0) -> None:
        if not has_chart(manifold):
            raise ValueError(f"Chart: expected a Euclidean or hyperbolic manifold, got {manifold}")
        super().__init__(manifold, cache_size)

    def with_cache(self, cache_size: int = 1) -> Chart:
        return Chart(self.manifold, cache_size)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return _log_volume_element(self.manifold, x)


def _log_volume_element(manifold: Manifold, x: Tensor) -> Tensor:
    if isinstance(manifold, Product):
        parts = x.split([factor.embed_dim for factor in manifold.manifolds], -1)
        pairs = zip(manifold.manifolds, parts, strict=True)
        return torch.stack([_log_volume_element(*pair) for pair in pairs]).sum(0)
    if isinstance(manifold, HyperbolicSpace):
        return manifold.log_volume_element(x)
    return x.new_zeros(x.shape[:-1])
