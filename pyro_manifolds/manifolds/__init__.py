"""Manifolds: what a point is, how to move, and how to leave and enter the ambient space."""

from pyro_manifolds.manifolds.conversion import as_manifold
from pyro_manifolds.manifolds.cylinder import Cylinder
from pyro_manifolds.manifolds.euclidean import Euclidean
from pyro_manifolds.manifolds.flat import FlatManifold
from pyro_manifolds.manifolds.hyperbolic_space import HyperbolicSpace
from pyro_manifolds.manifolds.hyperboloid import Hyperboloid
from pyro_manifolds.manifolds.klein_bottle import KleinBottle
from pyro_manifolds.manifolds.lens_space import LensSpace
from pyro_manifolds.manifolds.manifold import Manifold
from pyro_manifolds.manifolds.moebius_band import MoebiusBand
from pyro_manifolds.manifolds.poincare_ball import PoincareBall
from pyro_manifolds.manifolds.product import Product
from pyro_manifolds.manifolds.projective_space import ProjectiveSpace
from pyro_manifolds.manifolds.so3 import SO3
from pyro_manifolds.manifolds.sphere import Sphere
from pyro_manifolds.manifolds.torus import Circle, Torus

__all__ = [
    "SO3",
    "Circle",
    "Cylinder",
    "Euclidean",
    "FlatManifold",
    "HyperbolicSpace",
    "Hyperboloid",
    "KleinBottle",
    "LensSpace",
    "Manifold",
    "MoebiusBand",
    "PoincareBall",
    "Product",
    "ProjectiveSpace",
    "Sphere",
    "Torus",
    "as_manifold",
]
