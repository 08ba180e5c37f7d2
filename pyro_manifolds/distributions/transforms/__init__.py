"""Transforms: coverings, and the way from the ambient space onto a manifold."""

from pyro_manifolds.distributions.transforms.chart import Chart, has_chart
from pyro_manifolds.distributions.transforms.covering import (
    ComposedCovering,
    Covering,
    FiniteCovering,
)
from pyro_manifolds.distributions.transforms.flat_covering import (
    FlatCovering,
    ProductCovering,
    covering_of,
)
from pyro_manifolds.distributions.transforms.unembed import Unembed

__all__ = [
    "Chart",
    "ComposedCovering",
    "Covering",
    "FiniteCovering",
    "FlatCovering",
    "ProductCovering",
    "Unembed",
    "covering_of",
    "has_chart",
]
