"""Reparameterisers for sites on manifolds, and for complex ones."""

from pyro_manifolds.infer.reparam.complex import ComplexReparam
from pyro_manifolds.infer.reparam.covering import CoveringReparam
from pyro_manifolds.infer.reparam.embedding import EmbeddingReparam
from pyro_manifolds.infer.reparam.filter import FilterReparam
from pyro_manifolds.infer.reparam.manifold import ManifoldReparam
from pyro_manifolds.infer.reparam.strategies import AutoManifoldReparam
from pyro_manifolds.infer.reparam.topographic import TopographicReparam

__all__ = [
    "AutoManifoldReparam",
    "ComplexReparam",
    "CoveringReparam",
    "EmbeddingReparam",
    "FilterReparam",
    "ManifoldReparam",
    "TopographicReparam",
]
