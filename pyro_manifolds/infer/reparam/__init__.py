"""Reparameterisers for sites on manifolds."""

from pyro_manifolds.infer.reparam.covering import CoveringReparam
from pyro_manifolds.infer.reparam.embedding import EmbeddingReparam
from pyro_manifolds.infer.reparam.filter import FilterReparam
from pyro_manifolds.infer.reparam.manifold import ManifoldReparam
from pyro_manifolds.infer.reparam.strategies import AutoManifoldReparam

__all__ = [
    "AutoManifoldReparam",
    "CoveringReparam",
    "EmbeddingReparam",
    "FilterReparam",
    "ManifoldReparam",
]
