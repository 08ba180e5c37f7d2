"""Transforms: coverings, embeddings, and the way from the ambient space onto a manifold."""

from pyro_manifolds.distributions.transforms.chart import Chart, has_chart
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
    ManifoldEmbedding,
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
    "ManifoldEmbedding",
    "ProductCovering",
    "RevolutionTorusEmbedding",
    "Rotation",
    "StereographicEmbedding",
    "Unembed",
    "covering_of",
    "has_chart",
]
