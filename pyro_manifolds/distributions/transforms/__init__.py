"""Transforms: coverings, embeddings, and the way from the ambient space onto a manifold."""

from typing import Any

from pyro_manifolds.distributions.transforms.chart import Chart, has_chart
from pyro_manifolds.distributions.transforms.complex import (
    RealToCoherence,
    RealToComplex,
    RealToComplexCholesky,
    RealToHermitianPositiveDefinite,
    RealToUnitDisk,
)
from pyro_manifolds.distributions.transforms.covering import (
    ComposedCovering,
    Covering,
    FiniteCovering,
)
from pyro_manifolds.distributions.transforms.embedding import (
    ComposedEmbedding,
    Embedding,
    FunctionEmbedding,
)
from pyro_manifolds.distributions.transforms.embeddings import (
    EqualAreaSphereEmbedding,
    FlatTorusEmbedding,
    RevolutionTorusEmbedding,
    StereographicEmbedding,
)
from pyro_manifolds.distributions.transforms.flat_covering import (
    FlatCovering,
    ProductCovering,
    covering_of,
)
from pyro_manifolds.distributions.transforms.group_action import (
    FlatIsometry,
    GroupAction,
    Rotation,
)
from pyro_manifolds.distributions.transforms.image import ImageOf
from pyro_manifolds.distributions.transforms.learned_embedding import LearnedEmbedding
from pyro_manifolds.distributions.transforms.manifold_embedding import ManifoldEmbedding
from pyro_manifolds.distributions.transforms.unembed import Unembed

__all__ = [
    "Chart",
    "ComposedCovering",
    "ComposedEmbedding",
    "Covering",
    "Embedding",
    "EqualAreaSphereEmbedding",
    "FiniteCovering",
    "FlatCovering",
    "FlatIsometry",
    "FlatTorusEmbedding",
    "FunctionEmbedding",
    "GroupAction",
    "ImageOf",
    "LearnedEmbedding",
    "ManifoldEmbedding",
    "ProductCovering",
    "RealToCoherence",
    "RealToComplex",
    "RealToComplexCholesky",
    "RealToHermitianPositiveDefinite",
    "RealToUnitDisk",
    "RevolutionTorusEmbedding",
    "Rotation",
    "StereographicEmbedding",
    "Unembed",
    "covering_of",
    "fit_embedding",
    "has_chart",
]


def __getattr__(name: str) -> Any:
    """Import on demand what trains networks, which rest on this package."""
    if name == "fit_embedding":
        from pyro_manifolds.nn.embedding_fit import fit_embedding

        return fit_embedding
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
