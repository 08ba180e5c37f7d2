"""Modules that end on a manifold, and features that start from one."""

from pyro_manifolds.nn.alignment import (
    AlignedHead,
    Alignment,
    align_to_manifold,
    principal_start,
)
from pyro_manifolds.nn.flows import CylinderFlow, TorusFlow
from pyro_manifolds.nn.heads import InvariantFeatures, ManifoldHead, ScaleHead, WrappedNormalHead

__all__ = [
    "AlignedHead",
    "Alignment",
    "CylinderFlow",
    "InvariantFeatures",
    "ManifoldHead",
    "ScaleHead",
    "TorusFlow",
    "WrappedNormalHead",
    "align_to_manifold",
    "principal_start",
]
