"""Figures, drawn with matplotlib on axes that are passed in."""

from pyro_manifolds.plotting.capsules import draw_capsule_traversal, draw_sequences
from pyro_manifolds.plotting.decoder_geometry import draw_log_volume
from pyro_manifolds.plotting.embeddings import draw_embedding
from pyro_manifolds.plotting.filters import (
    PlacedFilters,
    draw_filter_atlas,
    draw_filter_draws,
    draw_placed_filters,
)
from pyro_manifolds.plotting.fundamental_square import (
    draw_fundamental_square,
    draw_patches_on_square,
    square_grid,
)
from pyro_manifolds.plotting.klein_densities import draw_filter_posterior, draw_klein_density
from pyro_manifolds.plotting.topographic_map import draw_preference_map, draw_topographic_map

__all__ = [
    "PlacedFilters",
    "draw_capsule_traversal",
    "draw_embedding",
    "draw_filter_atlas",
    "draw_filter_draws",
    "draw_filter_posterior",
    "draw_fundamental_square",
    "draw_klein_density",
    "draw_log_volume",
    "draw_patches_on_square",
    "draw_placed_filters",
    "draw_preference_map",
    "draw_sequences",
    "draw_topographic_map",
    "square_grid",
]
