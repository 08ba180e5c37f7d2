"""Latent variables and weights on manifolds, as ordinary Pyro distributions and reparams."""

from pyro_manifolds import datasets, distributions, geometry, infer, manifolds, nn, ops
from pyro_manifolds.distributions import (
    CoveringPushforward,
    ManifoldUniform,
    PowerSpherical,
    ProjectedNormal,
    SphericalCauchy,
    VonMises,
    VonMisesFisher,
    WrappedNormal,
    covering_kl_bound,
    covering_kl_estimate,
)
from pyro_manifolds.infer.autoguide import AutoWrappedNormal
from pyro_manifolds.infer.reparam import AutoManifoldReparam, CoveringReparam, ManifoldReparam
from pyro_manifolds.manifolds import (
    SO3,
    Circle,
    Cylinder,
    Euclidean,
    Hyperboloid,
    KleinBottle,
    LensSpace,
    MoebiusBand,
    PoincareBall,
    Product,
    ProjectiveSpace,
    Sphere,
    Torus,
)

__version__ = "0.1.0"

__all__ = [
    "SO3",
    "AutoManifoldReparam",
    "AutoWrappedNormal",
    "Circle",
    "CoveringPushforward",
    "CoveringReparam",
    "Cylinder",
    "Euclidean",
    "Hyperboloid",
    "KleinBottle",
    "LensSpace",
    "ManifoldReparam",
    "ManifoldUniform",
    "MoebiusBand",
    "PoincareBall",
    "PowerSpherical",
    "Product",
    "ProjectedNormal",
    "ProjectiveSpace",
    "Sphere",
    "SphericalCauchy",
    "Torus",
    "VonMises",
    "VonMisesFisher",
    "WrappedNormal",
    "covering_kl_bound",
    "covering_kl_estimate",
    "datasets",
    "distributions",
    "geometry",
    "infer",
    "manifolds",
    "nn",
    "ops",
]
