"""Figures, drawn with matplotlib on axes that are passed in."""

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

__all__ = [
    "PlacedFilters",
    "draw_embedding",
    "draw_filter_atlas",
    "draw_filter_draws",
    "draw_filter_posterior",
    "draw_fundamental_square",
    "draw_klein_density",
    "draw_patches_on_square",
    "draw_placed_filters",
    "square_grid",
]
