"""Supports of distributions on manifolds, and how Pyro moves in and out of them.

With them the constraints of complex numbers, from ``complex_constraints.py``.
"""

from typing import NoReturn

from pyro.distributions import constraints
from pyro.distributions.constraints import Constraint
from torch import Tensor
from torch.distributions import Transform, biject_to, transform_to

from pyro_manifolds.distributions.complex_constraints import (
    coherence,
    complex,
    complex_cholesky,
    complex_vector,
    hermitian_positive_definite,
    unit_disk,
)
from pyro_manifolds.distributions.transforms.chart import Chart, has_chart
from pyro_manifolds.distributions.transforms.unembed import Unembed
from pyro_manifolds.manifolds import Euclidean, Manifold

__all__ = [
    "OnManifold",
    "coherence",
    "complex",
    "complex_cholesky",
    "complex_vector",
    "hermitian_positive_definite",
    "on_manifold",
    "unit_disk",
]


class OnManifold(Constraint):
    """Points of a manifold, in any of their representations.

    ``transform_to`` maps the ambient space onto the manifold through ``unembed``, so that
    ``pyro.param(..., constraint=manifold.support)`` and ``init_to_feasible`` work. ``biject_to``
    exists where the manifold has a chart, on Euclidean and hyperbolic space and their products,
    with the log-determinant of the Riemannian volume; elsewhere it raises an error that names the
    ways round it.

    Args:
        manifold: The manifold.

    Raises:
        ValueError: If a checked value has not the shape of points of the manifold.

    Example:
        >>> OnManifold(KleinBottle()).check(torch.tensor([[9.0, -9.0], [math.nan, 0.0]]))
        tensor([ True, False])
    """

    is_discrete = False

    def __init__(self, manifold: Manifold) -> None:
        self.manifold = manifold
        super().__init__()

    @property
    def event_dim(self) -> int:  # type: ignore[override]
        return self.manifold.ndim

    def check(self, value: Tensor) -> Tensor:
        self.manifold._assert_check_shape(value.shape, "value")
        return self.manifold.contains(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OnManifold) and other.manifold == self.manifold

    def __hash__(self) -> int:
        return hash((OnManifold, self.manifold))

    def __repr__(self) -> str:
        # Pyro takes a support with "sphere" in its name for its own, and gives advice that fails.
        return f"on_manifold({self.manifold})".replace("Sphere", "Sph")


on_manifold = OnManifold


@transform_to.register(OnManifold)
def _transform_to_manifold(constraint: OnManifold) -> Transform:
    return (Chart if has_chart(constraint.manifold) else Unembed)(constraint.manifold)


@biject_to.register(OnManifold)
def _biject_to_manifold(constraint: OnManifold) -> Transform | NoReturn:
    if isinstance(constraint.manifold, Euclidean):
        return biject_to(constraints.real_vector)
    if has_chart(constraint.manifold):
        return Chart(constraint.manifold)
    raise NotImplementedError(
        f"No bijection from R^n covers {constraint.manifold} without a cut. Reparameterise the "
        "model's site with pyro_manifolds.infer.reparam.ManifoldReparam, which serves every "
        "algorithm of Pyro (but not lens spaces, nor Moebius bands of finite width), or give the "
        "site a guide on the manifold itself: WrappedNormal in a guide of your own, or "
        "pyro_manifolds.infer.autoguide.AutoWrappedNormal."
    )
