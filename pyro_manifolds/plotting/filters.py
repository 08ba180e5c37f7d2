"""Filters on the square of the Klein bottle: the atlas, learned ones, and draws."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from torch import Tensor

from pyro_manifolds.manifolds import KleinBottle
from pyro_manifolds.ops.filters import klein_filters, nearest_klein_filters, unit_filters
from pyro_manifolds.plotting.fundamental_square import (
    draw_fundamental_square,
    draw_patches_on_square,
    square_grid,
)

__all__ = [
    "PlacedFilters",
    "draw_filter_atlas",
    "draw_filter_draws",
    "draw_placed_filters",
    "ensure_square",
]

_LOW, _HIGH = (0.0, -math.pi), (math.pi, math.pi)
_ACCENT = "tab:orange"


class PlacedFilters(NamedTuple):
    """Where filters were drawn on the square.

    Attributes:
        points: Angles of the nearest filters of the Klein bottle, canonical, ``(n, 2)``.
        cosines: Cosines of the angles to them, ``(n,)``.
        shown: Which were drawn, ``(n,)``.
        centres: Where their images were drawn, ``(shown.sum(), 2)``.
    """

    points: Tensor
    cosines: Tensor
    shown: Tensor
    centres: Tensor


def draw_filter_atlas(
    ax: Axes,
    kernel_size: int,
    columns: int = 7,
    rows: int | None = None,
    *,
    alpha: float = 1.0,
    cmap: str = "gray",
) -> None:
    r"""Draw the filters of the Klein bottle over its square, at the centres of a grid of cells.

    Edges of all directions :math:`t_1` lie along :math:`t_2 = \pm\pi/2`, lines along 0 and
    :math:`\pi`. Filters are shown with their mean subtracted. Across the vertical edges the
    picture goes on upside down, as the arrows tell.

    Args:
        ax: Axes; if empty, :func:`draw_fundamental_square` is called first.
        kernel_size: Side of the filters in pixels, odd and at least 3.
        columns: Number of filters along :math:`t_1`.
        rows: Number of filters along :math:`t_2`; twice ``columns`` by default.
        alpha: Opacity; a low one makes a background for :func:`draw_placed_filters`.
        cmap: Name of a colour map of matplotlib.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> from matplotlib.figure import Figure
        >>> ax = Figure().subplots()
        >>> draw_filter_atlas(ax, kernel_size=5, columns=4)
        >>> len(ax.images)
        32
    """
    rows = 2 * columns if rows is None else rows
    points = square_grid(KleinBottle(), columns, rows)
    filters = unit_filters(klein_filters(points, kernel_size))
    ensure_square(ax)
    size = 0.84 * min(math.pi / columns, 2 * math.pi / rows)
    draw_patches_on_square(ax, points, filters, size=size, cmap=cmap, alpha=alpha)


def draw_placed_filters(
    ax: Axes,
    filters: Tensor,
    *,
    min_cosine: float = 0.5,
    size: float = 0.42,
    cmap: str = "gray",
) -> PlacedFilters:
    """Draw filters, such as those that a net has learned, at the nearest ones of the Klein bottle.

    Filters that resemble the Klein bottle less are fainter. Images that would overlap or leave
    the square are moved to the nearest free place, and a line leads from there to a dot at the
    point; the likest come first. Filters below ``min_cosine``, and those without a free place,
    are left out and counted below the square.

    Args:
        ax: Axes; if empty, :func:`draw_fundamental_square` is called first.
        filters: Shape ``(..., k, k)``, k odd and at least 3, none of them constant.
        min_cosine: Least cosine of the angle to the nearest filter, in [0, 1).
        size: Side of an image in radians.
        cmap: Name of a colour map of matplotlib.

    Returns:
        Points, cosines and which were drawn, in the order of the filters.

    Raises:
        ValueError: If an argument is out of range or has the wrong shape.

    Example:
        >>> from matplotlib.figure import Figure
        >>> corner = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
        >>> placed = draw_placed_filters(Figure().subplots(), corner)
        >>> placed.points.round(decimals=1)
        tensor([[0.8000, 1.3000]])
    """
    if not 0 <= min_cosine < 1 or not 0 < size < math.pi:
        raise ValueError(
            "draw_placed_filters: expected min_cosine in [0, 1) and size in (0, pi), "
            f"got {min_cosine} and {size}"
        )
    nearest = nearest_klein_filters(filters.detach().cpu())
    points, cosines = nearest.points.reshape(-1, 2), nearest.cosines.flatten()
    alike = cosines >= min_cosine
    centres = torch.full_like(points, math.nan)
    centres[alike] = _arrange(points[alike], cosines[alike], size)
    shown = ~centres.isnan().any(-1)
    centres = centres[shown]
    ensure_square(ax)
    _draw_leaders(ax, points[shown], centres, size)
    kept = filters.detach().cpu().reshape(-1, *filters.shape[-2:])[shown]
    kept = kept - kept.mean((-2, -1), keepdim=True)
    faintest = 0.4
    likeness = (cosines[shown] - min_cosine) / (1 - min_cosine)
    alpha = (faintest + (1 - faintest) * likeness).clamp(max=1.0)
    draw_patches_on_square(ax, centres, kept, size=size, cmap=cmap, alpha=alpha)
    left_out = {
        f"cosine < {min_cosine:g}": int((~alike).sum()),
        "no room": int((alike & ~shown).sum()),
    }
    counts = [
        f"{count} of {len(shown)} left out: {why}" for why, count in left_out.items() if count
    ]
    ax.set_xlabel("\n".join(filter(None, [ax.get_xlabel(), *counts])))
    return PlacedFilters(points, cosines, shown, centres)


def draw_filter_draws(
    ax: Axes, draws: Tensor, *, color: str = _ACCENT, size: float = 9.0, alpha: float = 0.7
) -> PathCollection:
    """Draw the points of draws of a filter, such as those from a guide, on the square.

    Args:
        ax: Axes; if empty, :func:`draw_fundamental_square` is called first.
        draws: Points of the Klein bottle by any representatives, ``(..., 2)``; or filters,
            ``(..., k, k)`` with k odd and at least 3, which go to their nearest points.
        color: Colour of the dots.
        size: Area of a dot in square points.
        alpha: Opacity of the dots.

    Returns:
        The dots.

    Raises:
        ValueError: If the shape is neither.

    Example:
        >>> from matplotlib.figure import Figure
        >>> dots = draw_filter_draws(Figure().subplots(), torch.tensor([[3.2416, 1.0]]))
        >>> dots.get_offsets().round(2).tolist()
        [[0.1, -1.0]]
    """
    draws = draws.detach().cpu()
    if draws.shape[-1:] == (2,):
        points = KleinBottle().projx(draws)
    else:
        points = nearest_klein_filters(draws).points
    ensure_square(ax)
    t1, t2 = points.reshape(-1, 2).unbind(-1)
    return ax.scatter(
        t1.numpy(), t2.numpy(), s=size, color=color, alpha=alpha, linewidths=0, zorder=6
    )


def ensure_square(ax: Axes) -> None:
    """Draw the square of the Klein bottle if the axes are empty."""
    if not ax.has_data():
        draw_fundamental_square(ax, KleinBottle())


def _arrange(points: Tensor, cosines: Tensor, size: float) -> Tensor:
    """Find places for squares of one size near their points, the likest first; NaN if none."""
    low, high = points.new_tensor(_LOW) + size / 2, points.new_tensor(_HIGH) - size / 2
    steps = torch.arange(0, 2 * math.pi, size / 8).to(points)
    others = low + torch.cartesian_prod(steps, steps)
    others = others[(others <= high).all(-1)]
    centres = torch.full_like(points, math.nan)
    for index in cosines.argsort(descending=True, stable=True).tolist():
        options = torch.cat([points[index].clamp(low, high)[None], others])
        gaps = (options[:, None] - centres).abs().amax(-1)
        options = options[~(gaps < 1.04 * size).any(-1)]
        if len(options):
            nearest = (options - points[index]).square().sum(-1).argmin()
            centres[index] = options[nearest]
    return centres


def _draw_leaders(ax: Axes, points: Tensor, centres: Tensor, size: float) -> None:
    for point, centre in zip(points.tolist(), centres.tolist(), strict=True):
        if max(abs(p - c) for p, c in zip(point, centre, strict=True)) > size / 2:
            ends = zip(point, centre, strict=True)
            ax.plot(*ends, color=_ACCENT, linewidth=0.8, zorder=2)  # below the images to come
            ax.plot(*point, marker="o", markersize=2.5, color=_ACCENT, zorder=6)
