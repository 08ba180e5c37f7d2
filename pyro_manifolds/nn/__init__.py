"""Modules that end on a manifold, and features that start from one."""

from pyro_manifolds.nn.heads import InvariantFeatures, ManifoldHead, ScaleHead, WrappedNormalHead

__all__ = ["InvariantFeatures", "ManifoldHead", "ScaleHead", "WrappedNormalHead"]
