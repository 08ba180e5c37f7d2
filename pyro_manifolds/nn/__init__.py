"""Modules that end on a manifold, and features that start from one."""

from pyro_manifolds.nn import bayesian
from pyro_manifolds.nn.alignment import (
    AlignedHead,
    Alignment,
    align_to_manifold,
    principal_start,
)
from pyro_manifolds.nn.complex_networks import ComplexDecoder, ComplexEncoder, ModulusGate
from pyro_manifolds.nn.complex_vae import ComplexGuide, ComplexModel, GaussianNoise
from pyro_manifolds.nn.deep_filter_prior import DeepFilterPrior
from pyro_manifolds.nn.deep_prior_guide import DeepPriorGuide
from pyro_manifolds.nn.deep_prior_training import fit_deep_filter_prior, starting_points
from pyro_manifolds.nn.embedding_diagnostics import EmbeddingDiagnostics, diagnose_embedding
from pyro_manifolds.nn.embedding_fit import fit_embedding
from pyro_manifolds.nn.filter_fit import fit_filter_prior
from pyro_manifolds.nn.filter_prior import KleinFilterPrior, KleinMixture
from pyro_manifolds.nn.flows import CylinderFlow, TorusFlow
from pyro_manifolds.nn.heads import InvariantFeatures, ManifoldHead, ScaleHead, WrappedNormalHead
from pyro_manifolds.nn.manifold_choice import ManifoldChoice, ManifoldRow, compare_manifolds
from pyro_manifolds.nn.manifold_vae import ManifoldGuide, ManifoldModel, fit_manifold_vae
from pyro_manifolds.nn.topographic_map import TopographicMap, fit_topographic_map
from pyro_manifolds.nn.topographic_vae import TopographicGuide, TopographicModel

__all__ = [
    "AlignedHead",
    "Alignment",
    "ComplexDecoder",
    "ComplexEncoder",
    "ComplexGuide",
    "ComplexModel",
    "CylinderFlow",
    "DeepFilterPrior",
    "DeepPriorGuide",
    "EmbeddingDiagnostics",
    "GaussianNoise",
    "InvariantFeatures",
    "KleinFilterPrior",
    "KleinMixture",
    "ManifoldChoice",
    "ManifoldGuide",
    "ManifoldHead",
    "ManifoldModel",
    "ManifoldRow",
    "ModulusGate",
    "ScaleHead",
    "TopographicGuide",
    "TopographicMap",
    "TopographicModel",
    "TorusFlow",
    "WrappedNormalHead",
    "align_to_manifold",
    "bayesian",
    "compare_manifolds",
    "diagnose_embedding",
    "fit_deep_filter_prior",
    "fit_embedding",
    "fit_filter_prior",
    "fit_manifold_vae",
    "fit_topographic_map",
    "principal_start",
    "starting_points",
]
