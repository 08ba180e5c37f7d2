"""Shape of what a model has learned: the topology of point clouds."""

from pyro_manifolds.geometry.topology import (
    TopologyScore,
    betti_numbers,
    farthest_point_indices,
    persistence,
    topology_score,
)

__all__ = [
    "TopologyScore",
    "betti_numbers",
    "farthest_point_indices",
    "persistence",
    "topology_score",
]
