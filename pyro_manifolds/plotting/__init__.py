"""Figures, drawn with matplotlib on axes that are passed in."""

from pyro_manifolds.plotting.fundamental_square import (
    draw_fundamental_square,
    draw_patches_on_square,
    square_grid,
)

__all__ = ["draw_fundamental_square", "draw_patches_on_square", "square_grid"]
