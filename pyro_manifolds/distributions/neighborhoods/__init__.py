"""Which auxiliary variables each entry of a topographic latent shares with its neighbours."""

from pyro_manifolds.distributions.neighborhoods.base import Neighborhood
from pyro_manifolds.distributions.neighborhoods.dense import Dense
from pyro_manifolds.distributions.neighborhoods.groups import Groups
from pyro_manifolds.distributions.neighborhoods.ring import Ring
from pyro_manifolds.distributions.neighborhoods.shifted import Shifted
from pyro_manifolds.distributions.neighborhoods.torus2d import Torus2d

__all__ = ["Dense", "Groups", "Neighborhood", "Ring", "Shifted", "Torus2d"]
