"""Densities on the square of the Klein bottle, and posteriors of filters."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_manifolds.distributions import KleinFilter
from pyro_manifolds.distributions.adoption import manifold_of
from pyro_manifolds.manifolds import KleinBottle
from pyro_manifolds.plotting.filters import ensure_square
from pyro_manifolds.plotting.fundamental_square import square_grid

__all__ = ["draw_filter_posterior", "draw_klein_density"]


def draw_klein_density(
    ax: Axes, density: TorchDistribution, *, columns: int = 64, cmap: str = "Blues"
) -> AxesImage:
    r"""Draw a density on the Klein bottle, such as the one of a learned prior, over its square.

    Colours are the density over that of the uniform distribution, from 0 to the maximum or 4;
    half of the scale goes to the lowest quarter.

    Args:
        ax: Axes; if empty, :func:`draw_fundamental_square` is called first.
        density: Distribution on ``KleinBottle()``, of batch shape ``()``.
        columns: Cells along :math:`t_1`; along :math:`t_2` there are twice as many.
        cmap: Name of a colour map of matplotlib.

    Returns:
        The image, for a colour bar. Its array has one more cell on each side than the square,
        so that it is smooth across the seams.

    Raises:
        ValueError: If the distribution lives elsewhere or is a batch, or ``columns`` is not
            positive.

    Example:
        >>> from matplotlib.figure import Figure
        >>> density = WrappedNormal(KleinBottle(), torch.zeros(2), 0.5)
        >>> draw_klein_density(Figure().subplots(), density, columns=16).get_array().shape
        (34, 18)
    """
    if manifold_of(density) != KleinBottle() or density.batch_shape:
        raise ValueError(
            "draw_klein_density: expected a density on KleinBottle() of batch shape (), "
            f"got {density} of batch shape {tuple(density.batch_shape)}"
        )
    with torch.no_grad():
        like = density.sample()
    return _draw_log_density(ax, density.log_prob, like, columns, cmap)


def draw_filter_posterior(
    ax: Axes,
    prior: KleinFilter,
    value: Tensor,
    *,
    columns: int = 64,
    cmap: str = "Blues",
) -> AxesImage:
    r"""Draw the posterior density of the point on the Klein bottle of one filter.

    Colours are those of :func:`draw_klein_density`. A filter that fits
    :math:`F(z)` with an amplitude :math:`a` fits its negative with :math:`-a`, so that there are
    two equal modes, half a turn of :math:`t_2` apart, unless the prior's ``density`` prefers one.

    Args:
        ax: Axes; if empty, :func:`draw_fundamental_square` is called first.
        prior: Prior of one filter, of batch shape ``()``.
        value: The filter, shape ``(k, k)``.
        columns: Cells along :math:`t_1`; along :math:`t_2` there are twice as many.
        cmap: Name of a colour map of matplotlib.

    Returns:
        The image, for a colour bar. Its array has one more cell on each side than the square,
        so that it is smooth across the seams.

    Raises:
        TypeError: If the prior is not a ``KleinFilter``.
        ValueError: If the prior or the value is a batch, or ``columns`` is not positive.

    Example:
        >>> from matplotlib.figure import Figure
        >>> prior, edge = KleinFilter(3, 1.0, 0.3), torch.tensor([[-1.0, 0.0, 1.0]]).expand(3, 3)
        >>> image = draw_filter_posterior(Figure().subplots(), prior, edge, columns=16)
        >>> image.get_array().shape
        (34, 18)
    """
    _check_posterior(prior, value)
    return _draw_log_density(ax, lambda z: prior.log_posterior(value, z), value, columns, cmap)


def _draw_log_density(
    ax: Axes, log_density: Callable[[Tensor], Tensor], like: Tensor, columns: int, cmap: str
) -> AxesImage:
    grid = _framed_grid(columns, like)
    with torch.no_grad():
        relative = (KleinBottle.volume * log_density(grid).exp()).cpu()
    ensure_square(ax)
    limits, cell = (ax.get_xlim(), ax.get_ylim()), math.pi / columns
    image = ax.imshow(
        relative.numpy(),
        cmap=cmap,
        # Weak modes are seen too, and what is nearly uniform looks so.
        norm=PowerNorm(0.5, vmin=0, vmax=max(4.0, float(relative.max()))),
        extent=(-cell, math.pi + cell, -math.pi - cell, math.pi + cell),
        origin="lower",
        interpolation="bilinear",
        zorder=1,
    )
    image.set_clip_path(Rectangle((0.0, -math.pi), math.pi, 2 * math.pi, transform=ax.transData))
    ax.set(xlim=limits[0], ylim=limits[1])  # imshow moves them
    return image


def _framed_grid(columns: int, like: Tensor) -> Tensor:
    """Return the centres of cells, and of one more cell on each side, as canonical points."""
    grid = square_grid(KleinBottle(), columns, 2 * columns, dtype=like.dtype).to(like.device)
    cell = math.pi / columns
    first = torch.cat([grid[0, :1, 0] - cell, grid[0, :, 0], grid[0, -1:, 0] + cell])
    second = torch.cat([grid[:1, 0, 1] - cell, grid[:, 0, 1], grid[-1:, 0, 1] + cell])
    framed = torch.stack(torch.meshgrid(first, second, indexing="xy"), -1)
    return KleinBottle().projx(framed).as_subclass(Tensor)


def _check_posterior(prior: KleinFilter, value: Tensor) -> None:
    if not isinstance(prior, KleinFilter):
        raise TypeError(
            f"draw_filter_posterior: expected prior to be a KleinFilter, "
            f"got {type(prior).__name__}"
        )
    if prior.batch_shape or value.shape != prior.event_shape:
        raise ValueError(
            "draw_filter_posterior: expected a prior of batch shape () and a value of shape "
            f"{tuple(prior.event_shape)}, got {tuple(prior.batch_shape)} and "
            f"{tuple(value.shape)}"
        )
