"""Guides that are made from the model, with densities on manifolds."""

from pyro_manifolds.infer.autoguide.wrapped_normal import AutoWrappedNormal

__all__ = ["AutoWrappedNormal"]
