"""Distributions on manifolds, each with respect to the Riemannian volume."""

from pyro_manifolds.distributions import complex_kl as complex_kl
from pyro_manifolds.distributions import constraints
from pyro_manifolds.distributions.circle_filter import CircleFilter
from pyro_manifolds.distributions.complex_multivariate_normal import (
    ComplexMultivariateNormal,
)
from pyro_manifolds.distributions.complex_normal import ComplexNormal
from pyro_manifolds.distributions.concatenated import Concatenated
from pyro_manifolds.distributions.covering_pushforward import CoveringPushforward
from pyro_manifolds.distributions.embedding_pushforward import EmbeddingPushforward
from pyro_manifolds.distributions.filter_distribution import FilterDistribution
from pyro_manifolds.distributions.folded_normal import FoldedNormal
from pyro_manifolds.distributions.gaussian_filter import GaussianFilter
from pyro_manifolds.distributions.hyperbolic_normal import HyperbolicNormal
from pyro_manifolds.distributions.kl import covering_kl_bound, covering_kl_estimate
from pyro_manifolds.distributions.klein_filter import KleinFilter
from pyro_manifolds.distributions.manifold_filter import ManifoldFilter
from pyro_manifolds.distributions.manifold_mixture import ManifoldMixture
from pyro_manifolds.distributions.manifold_uniform import ManifoldUniform
from pyro_manifolds.distributions.mixture_filter import MixtureFilter
from pyro_manifolds.distributions.moved import Moved
from pyro_manifolds.distributions.neighborhoods import (
    Dense,
    Groups,
    Neighborhood,
    Ring,
    Shifted,
    Torus2d,
)
from pyro_manifolds.distributions.normalizing_flow import NormalizingFlow
from pyro_manifolds.distributions.power_spherical import PowerSpherical
from pyro_manifolds.distributions.projected_normal import ProjectedNormal
from pyro_manifolds.distributions.spherical_cauchy import SphericalCauchy
from pyro_manifolds.distributions.tangent_normal import TangentNormal
from pyro_manifolds.distributions.topographic_student_t import TopographicStudentT
from pyro_manifolds.distributions.von_mises import VonMises
from pyro_manifolds.distributions.von_mises_fisher import VonMisesFisher
from pyro_manifolds.distributions.wrapped_normal import WrappedNormal

__all__ = [
    "CircleFilter",
    "ComplexMultivariateNormal",
    "ComplexNormal",
    "Concatenated",
    "CoveringPushforward",
    "Dense",
    "EmbeddingPushforward",
    "FilterDistribution",
    "FoldedNormal",
    "GaussianFilter",
    "Groups",
    "HyperbolicNormal",
    "KleinFilter",
    "ManifoldFilter",
    "ManifoldMixture",
    "ManifoldUniform",
    "MixtureFilter",
    "Moved",
    "Neighborhood",
    "NormalizingFlow",
    "PowerSpherical",
    "ProjectedNormal",
    "Ring",
    "Shifted",
    "SphericalCauchy",
    "TangentNormal",
    "TopographicStudentT",
    "Torus2d",
    "VonMises",
    "VonMisesFisher",
    "WrappedNormal",
    "constraints",
    "covering_kl_bound",
    "covering_kl_estimate",
]
