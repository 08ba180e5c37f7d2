"""Decoders of two real dimensions, or a complex one: volumes over the plane, and geodesics."""

from __future__ import annotations

from collections.abc import Callable

import torch
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from torch import Tensor

from pyro_manifolds.geometry import Geodesic

__all__ = ["draw_log_volume"]


def draw_log_volume(
    ax: Axes,
    log_volume: Callable[[Tensor], Tensor],
    codes: Tensor,
    *,
    geodesic: Geodesic | None = None,
    columns: int = 64,
    cmap: str = "Blues",
) -> AxesImage:
    """Draw the logarithm of a volume element over the plane of latents, under codes.

    Codes are grey dots. Of geodesics, each is drawn as a line, next to a dashed one that is
    straight; red ones have not converged.

    Args:
        ax: Axes.
        log_volume: Function of latents ``[N, 2]``, or complex ones ``[N, 1]``, to numbers ``[N]``,
            such as ``functools.partial(log_volume, decoder)``.
        codes: Codes of data, of that shape. The plane is seen as far as they reach, and a tenth
            more.
        geodesic: What :func:`~pyro_manifolds.geometry.geodesic` found, one or a batch.
        columns: Cells along either side.
        cmap: Name of a colour map of matplotlib.

    Returns:
        The image, for a colour bar.

    Raises:
        ValueError: If the codes, or the points of the geodesic, are not of the plane, or
            ``columns`` is less than two.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from pyro_manifolds.geometry import fisher_metric, geodesic, log_volume
        >>> from pyro_manifolds.plotting import draw_log_volume
        >>> def decoder(z):
        ...     return dist.Normal(torch.cat([z, z.square()], -1), 1.0)
        >>> codes = torch.randn(50, 2)
        >>> found = geodesic(lambda z: fisher_metric(decoder, z), codes[0], codes[1])
        >>> ax = Figure().subplots()
        >>> image = draw_log_volume(ax, lambda z: log_volume(decoder, z), codes, geodesic=found)
        >>> image.get_array().shape
        (64, 64)
    """
    flat = _plane("codes", codes)
    if columns < 2:
        raise ValueError(f"draw_log_volume: expected columns of at least 2, got {columns}")
    low, high = flat.amin(0), flat.amax(0)
    margin = 0.1 * (high - low).max().clamp(min=torch.finfo(flat.dtype).tiny)
    low, high = low - margin, high + margin
    with torch.no_grad():
        volumes = log_volume(_grid(low, high, columns, codes)).reshape(columns, columns)
    (left, bottom), (right, top) = low.tolist(), high.tolist()
    image = ax.imshow(
        volumes.cpu().numpy(),
        cmap=cmap,
        extent=(left, right, bottom, top),
        origin="lower",
        interpolation="bilinear",
        zorder=1,
    )
    x, y = flat.mT.cpu().numpy()
    ax.scatter(x, y, s=4, color="0.4", linewidths=0, label="codes", zorder=2)
    if geodesic is not None:
        _draw_geodesics(ax, geodesic)
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    return image


def _draw_geodesics(ax: Axes, geodesic: Geodesic) -> None:
    points = _plane("points of the geodesic", geodesic.points).cpu()
    curves = points.reshape(-1, *points.shape[-2:])
    for i, (curve, converged) in enumerate(
        zip(curves, geodesic.converged.reshape(-1).tolist(), strict=True)
    ):
        colour = "tab:orange" if converged else "tab:red"
        x, y = curve.mT.numpy()
        # One entry of the legend for all of them.
        names = ("geodesic", "straight line") if i == 0 else (None, None)
        ax.plot(x, y, color=colour, linewidth=1.5, label=names[0], zorder=3)
        x, y = x[[0, -1]], y[[0, -1]]
        ax.plot(x, y, "o--", color=colour, linewidth=1, markersize=4, label=names[1], zorder=3)


def _plane(name: str, z: Tensor) -> Tensor:
    """Return points of the plane as pairs of real numbers."""
    if z.dim() < 2 or z.shape[-1] != (1 if z.is_complex() else 2):
        raise ValueError(
            f"draw_log_volume: expected {name} of shape (N, 2), or complex ones of shape (N, 1), "
            f"got {z.dtype} of shape {tuple(z.shape)}"
        )
    z = z.detach()
    return torch.cat([z.real, z.imag], -1) if z.is_complex() else z


def _grid(low: Tensor, high: Tensor, columns: int, like: Tensor) -> Tensor:
    """Return the centres of cells, row by row from below, of the kind of the codes."""
    share = ((torch.arange(columns) + 0.5) / columns).to(low).unsqueeze(-1)
    x, y = (low + share * (high - low)).unbind(-1)
    pairs = torch.cartesian_prod(y, x).flip(-1)
    return torch.complex(*pairs.unbind(-1)).unsqueeze(-1) if like.is_complex() else pairs
