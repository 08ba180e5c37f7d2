"""Surfaces as squares with glued edges, and what lies on them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from pyro_manifolds.manifolds import KleinBottle, Manifold, MoebiusBand, Torus

__all__ = ["draw_fundamental_square", "draw_patches_on_square", "square_grid"]

_SIDES, _ENDS = "tab:red", "tab:blue"  # colours of the edges that the first, second angle joins


class _Square(NamedTuple):
    """Ranges of both coordinates, and for each how its two edges are glued: 0 is not at all."""

    low: tuple[float, float]
    high: tuple[float, float]
    gluing: tuple[int, int]  # 1 straight, -1 with a flip


def square_grid(
    manifold: Manifold, columns: int, rows: int, *, dtype: torch.dtype | None = None
) -> Tensor:
    """Return the centres of the cells into which columns and rows cut the fundamental square.

    Args:
        manifold: ``KleinBottle()``, ``Torus(2)`` or a ``MoebiusBand`` of finite width.
        columns: Number of cells along the first coordinate.
        rows: Number of cells along the second.
        dtype: Type of the points.

    Returns:
        Points, shape ``(rows, columns, 2)``, from the lowest row up.

    Raises:
        ValueError: If the manifold has no such square or a number is not positive.

    Example:
        >>> square_grid(KleinBottle(), columns=2, rows=1)
        tensor([[[0.7854, 0.0000],
                 [2.3562, 0.0000]]])
    """
    square = _square("square_grid", manifold)
    if columns < 1 or rows < 1:
        raise ValueError(
            f"square_grid: expected columns and rows of at least 1, got {columns} and {rows}"
        )
    first, second = (
        low
        + (high - low)
        * (torch.arange(cells, dtype=dtype or torch.get_default_dtype()) + 0.5)
        / cells
        for low, high, cells in zip(square.low, square.high, (columns, rows), strict=True)
    )
    return torch.stack(torch.meshgrid(first, second, indexing="xy"), -1)


def draw_fundamental_square(ax: Axes, manifold: Manifold, *, labels: bool = True) -> None:
    r"""Draw the square of canonical coordinates with arrows on the edges that are glued.

    Edges with the same number of arrowheads are one curve on the surface, joined so that the
    arrows agree: opposite arrows mean a flip. The vertical edges of the Klein bottle and the
    Moebius band are joined by :math:`(t_1 + \pi, t_2) \sim (t_1, -t_2)`. An edge without arrows
    is a boundary.

    Args:
        ax: Axes; the aspect is set to one, and room is made for the arrows.
        manifold: ``KleinBottle()``, ``Torus(2)`` or a ``MoebiusBand`` of finite width.
        labels: Whether to label the axes and mark multiples of :math:`\pi`.

    Raises:
        ValueError: If the manifold has no such square.

    Example:
        >>> from matplotlib.figure import Figure
        >>> draw_fundamental_square(Figure().subplots(), KleinBottle())
    """
    square = _square("draw_fundamental_square", manifold)
    size = max(high - low for low, high in zip(square.low, square.high, strict=True))
    for axis, color in enumerate((_SIDES, _ENDS)):
        for end, at in enumerate((square.low[axis], square.high[axis])):
            _draw_edge(ax, square, axis, at, color)
            if square.gluing[axis]:
                backwards = square.gluing[axis] < 0 and end == 1
                _draw_arrow(ax, square, axis, at, color, backwards, spacing=0.035 * size)
    margin = 0.04 * size
    ax.set_xlim(square.low[0] - margin, square.high[0] + margin)
    ax.set_ylim(square.low[1] - margin, square.high[1] + margin)
    ax.set_aspect("equal")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    if labels:
        _label(ax, manifold, square)
    else:
        ax.set_xticks([])
        ax.set_yticks([])


def draw_patches_on_square(
    ax: Axes,
    points: Tensor,
    patches: Tensor,
    *,
    size: float = 0.4,
    cmap: str = "gray",
    alpha: float | Tensor = 1.0,
) -> None:
    """Draw small images centred at points of a square, each on its own grey scale round zero.

    Args:
        ax: Axes, on which :func:`draw_fundamental_square` was called.
        points: Coordinates, ``(..., 2)``.
        patches: Images, ``(..., height, width)``, with the same leading dimensions.
        size: Side of an image, in units of the coordinates.
        cmap: Name of a colour map of matplotlib.
        alpha: Opacity of all images, or of each.

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> from matplotlib.figure import Figure
        >>> ax, grid = Figure().subplots(), square_grid(KleinBottle(), columns=3, rows=6)
        >>> draw_patches_on_square(ax, grid, torch.randn(6, 3, 3, 3))
        >>> len(ax.images)
        18
    """
    if points.shape[-1:] != (2,) or points.shape[:-1] != patches.shape[:-2]:
        raise ValueError(
            "draw_patches_on_square: expected points of shape (..., 2) and patches of shape "
            f"(..., height, width), got {tuple(points.shape)} and {tuple(patches.shape)}"
        )
    limits, half = (ax.get_xlim(), ax.get_ylim()), size / 2
    pixels = patches.detach().cpu().flatten(0, -3)
    centres = points.detach().cpu().reshape(-1, 2).tolist()
    opacities = torch.as_tensor(alpha).detach().cpu().expand(points.shape[:-1]).reshape(-1)
    for (x, y), patch, opacity in zip(centres, pixels, opacities.tolist(), strict=True):
        top = float(patch.abs().max()) or 1.0
        style = {"cmap": cmap, "vmin": -top, "vmax": top, "alpha": opacity, "zorder": 2}
        corner = (x - half, y - half)
        ax.add_patch(Rectangle(corner, size, size, color="white", linewidth=0, zorder=2))
        ax.imshow(patch.numpy(), extent=(x - half, x + half, y - half, y + half), **style)
        frame = Rectangle(corner, size, size, fill=False, color="0.6", linewidth=0.6, zorder=3)
        ax.add_patch(frame).set_alpha(opacity)
    ax.set_xlim(limits[0])  # imshow moves them
    ax.set_ylim(limits[1])


def _square(caller: str, manifold: Manifold) -> _Square:
    pi = math.pi
    if isinstance(manifold, KleinBottle):
        return _Square((0.0, -pi), (pi, pi), (-1, 1))
    if isinstance(manifold, Torus) and manifold.dim == 2:
        return _Square((-pi, -pi), (pi, pi), (1, 1))
    if isinstance(manifold, MoebiusBand) and math.isfinite(manifold.half_width):
        return _Square((0.0, -manifold.half_width), (pi, manifold.half_width), (-1, 0))
    raise ValueError(
        f"{caller}: expected KleinBottle(), Torus(2) or a MoebiusBand of finite width, "
        f"got {manifold}"
    )


def _draw_edge(ax: Axes, square: _Square, axis: int, at: float, color: str) -> None:
    ends = [[at, at], [square.low[1 - axis], square.high[1 - axis]]]
    style = {"color": color, "linewidth": 2.5} if square.gluing[axis] else {"color": "0.6"}
    ax.plot(*(ends if axis == 0 else ends[::-1]), **style, zorder=4, solid_capstyle="butt")


def _draw_arrow(
    ax: Axes,
    square: _Square,
    axis: int,
    at: float,
    color: str,
    backwards: bool,
    spacing: float,
) -> None:
    """Draw one arrowhead in the middle of an edge that axis 0 joins, two on one of axis 1."""
    middle = 0.5 * (square.low[1 - axis] + square.high[1 - axis])
    angle = (0 if axis == 0 else -90) + (180 if backwards else 0)
    for offset in ((0.0,), (-0.5, 0.5))[axis]:
        along = middle + offset * spacing
        point = (at, along) if axis == 0 else (along, at)
        ax.plot(*point, marker=(3, 0, angle), markersize=12, color=color, zorder=5, clip_on=False)


def _label(ax: Axes, manifold: Manifold, square: _Square) -> None:
    band = isinstance(manifold, MoebiusBand)
    ax.set_xlabel("$t$" if band else "$t_1$")
    ax.set_ylabel("$h$" if band else "$t_2$", rotation=0, labelpad=8)
    _mark_angles(ax, 0, square)
    if not band:
        _mark_angles(ax, 1, square)


def _mark_angles(ax: Axes, axis: int, square: _Square) -> None:
    marks = {-math.pi: r"$-\pi$", 0.0: "$0$", math.pi / 2: r"$\pi/2$", math.pi: r"$\pi$"}
    whole = square.low[axis] < 0
    kept = {at: text for at, text in marks.items() if at >= square.low[axis]}
    kept = {at: text for at, text in kept.items() if not (whole and at == math.pi / 2)}
    set_ticks = ax.set_xticks if axis == 0 else ax.set_yticks
    set_ticks(list(kept), list(kept.values()))
