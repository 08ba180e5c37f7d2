"""Reparameterisers for sites on manifolds."""

from pyro_manifolds.infer.reparam.covering import CoveringReparam

__all__ = ["CoveringReparam"]
