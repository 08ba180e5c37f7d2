"""Reparameterisers for sites on manifolds."""

from pyro_manifolds.infer.reparam.covering import CoveringReparam
from pyro_manifolds.infer.reparam.filter import FilterReparam
from pyro_manifolds.infer.reparam.manifold import ManifoldReparam
from pyro_manifolds.infer.reparam.strategies import AutoManifoldReparam

__all__ = ["AutoManifoldReparam", "CoveringReparam", "FilterReparam", "ManifoldReparam"]
