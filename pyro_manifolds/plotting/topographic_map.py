"""Maps on a torus: filters at their places, and classes that places prefer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from torch import Tensor

__all__ = ["draw_preference_map", "draw_topographic_map"]

_EDGE = "tab:red"


def draw_topographic_map(
    ax: Axes,
    filters: Tensor,
    *,
    margin: int = 0,
    gap: int = 1,
    cmap: str = "gray",
) -> AxesImage:
    """Draw filters at their places on a torus, each on its own scale round zero.

    Opposite edges of the map meet. With a margin, the map goes on over its edges by that many
    rows and columns of fainter copies, and a red frame shows where it ends.

    Args:
        ax: Axes; its ticks are taken away.
        filters: Shape ``[map height, map width, height, width]``, such as the ``filters`` or the
            ``features`` of a :class:`~pyro_manifolds.nn.TopographicMap`.
        margin: Rows and columns of copies beyond each edge.
        gap: Pixels between filters.
        cmap: Name of a colour map of matplotlib.

    Returns:
        The image, with the filters between -1 and 1, and nan between them.

    Raises:
        ValueError: If the shape is wrong or a number is negative.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from pyro_manifolds.plotting import draw_topographic_map
        >>> image = draw_topographic_map(Figure().subplots(), torch.randn(3, 4, 5, 5), margin=1)
        >>> image.get_array().shape
        (29, 35)
    """
    if filters.dim() != 4 or not filters.numel():
        raise ValueError(
            "draw_topographic_map: expected filters of shape (map height, map width, height, "
            f"width), got {tuple(filters.shape)}"
        )
    if gap < 0:
        raise ValueError(f"draw_topographic_map: expected gap >= 0, got {gap}")
    shape = filters.shape[:2]
    _check_margin("draw_topographic_map", margin)
    x = filters.detach().cpu()
    x = x / x.abs().amax((-2, -1), keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    x = _continued(x, margin)
    x = torch.nn.functional.pad(x, (0, gap, 0, gap), value=float("nan"))
    canvas = x.transpose(1, 2).flatten(2).flatten(0, 1)
    canvas = canvas[: len(canvas) - gap, : canvas.shape[1] - gap]
    height, width = (side + gap for side in filters.shape[2:])
    # In units of places: the map itself lies between 0 and its height and width.
    rows, columns = canvas.shape[0] / height, canvas.shape[1] / width
    extent = (-margin, columns - margin, rows - margin, -margin)
    style: dict[str, Any] = {"cmap": cmap, "vmin": -1.0, "vmax": 1.0, "interpolation": "nearest"}
    image = ax.imshow(canvas.numpy(), extent=extent, aspect=height / width, **style)
    _finish(ax, shape, margin, (gap / height, gap / width))
    return image


def draw_preference_map(
    ax: Axes,
    classes: Tensor,
    *,
    num_classes: int | None = None,
    strength: Tensor | None = None,
    margin: int = 0,
    labels: bool = True,
    cmap: str = "tab10",
) -> AxesImage:
    """Draw which class each place of a map on a torus prefers.

    Args:
        ax: Axes; its ticks are taken away.
        classes: Preferred classes, from 0 on, ``[height, width]``; such as those of
            :func:`~pyro_manifolds.geometry.class_preference`.
        num_classes: Number of classes; one more than the largest by default.
        strength: Opacity of each place, from 0 to 1, ``[height, width]``.
        margin: Rows and columns of fainter copies beyond each edge, where the map goes on.
        labels: Whether to write the class on each place.
        cmap: Name of a colour map of matplotlib; one of a list of colours has to have enough.

    Returns:
        The image of classes, for a colour bar.

    Raises:
        ValueError: If a shape is wrong, a class is out of range, or there are too few colours.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from pyro_manifolds.plotting import draw_preference_map
        >>> classes = torch.tensor([[0, 0, 1], [2, 2, 1]])
        >>> image = draw_preference_map(Figure().subplots(), classes, margin=1)
        >>> image.get_array()[0].tolist()
        [1, 2, 2, 1, 2]
    """
    number = _check_classes(classes, num_classes, strength)
    shape = classes.shape
    _check_margin("draw_preference_map", margin)
    palette = _palette(cmap, number)
    shown = _continued(classes.detach().cpu(), margin)
    height, width = shown.shape
    style: dict[str, Any] = {"cmap": palette, "vmin": -0.5, "vmax": number - 0.5}
    if strength is not None:
        alpha = _continued(strength.detach().cpu().float(), margin)
        style["alpha"] = alpha.clamp(0.0, 1.0).numpy()
    extent = (-margin, width - margin, height - margin, -margin)
    image = ax.imshow(shown.numpy(), extent=extent, interpolation="nearest", **style)
    if labels:
        for i in range(height):
            for j in range(width):
                place = (j - margin + 0.5, i - margin + 0.5)
                name = str(int(shown[i, j]))
                ax.text(*place, name, ha="center", va="center", fontsize=6, clip_on=True)
    _finish(ax, shape, margin, (0.0, 0.0))
    return image


def _continued(x: Tensor, margin: int) -> Tensor:
    """Return a map that goes on periodically by some rows and columns."""
    for axis in (0, 1):
        places = torch.arange(-margin, x.shape[axis] + margin).remainder(x.shape[axis])
        x = x.index_select(axis, places)
    return x


def _finish(ax: Axes, shape: Sequence[int], margin: int, gap: tuple[float, float]) -> None:
    """Take away ticks; veil the margin, and frame the map."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    if not margin:
        return
    (height, width), (row, column) = shape, gap
    left, top = -column / 2, -row / 2  # in the middle of the gaps
    far = margin + 1
    veil: dict[str, Any] = {"color": "white", "alpha": 0.6, "linewidth": 0, "zorder": 2}
    for corner, across, down in (
        ((-far, -far), width + 2 * far, far + top),
        ((-far, height + top), width + 2 * far, far),
        ((-far, top), far + left, height),
        ((width + left, top), far, height),
    ):
        ax.add_patch(Rectangle(corner, across, down, **veil))
    frame: dict[str, Any] = {"fill": False, "color": _EDGE, "linewidth": 1.5, "zorder": 3}
    ax.add_patch(Rectangle((left, top), width, height, **frame))


def _palette(cmap: str, number: int) -> Colormap:
    found = colormaps[cmap]
    if isinstance(found, ListedColormap) and found.N < 256:
        if number > found.N:
            raise ValueError(
                f"draw_preference_map: expected a colour map of at least {number} colours, one "
                f"for each class, got {cmap!r} of {found.N}"
            )
        return ListedColormap(found(list(range(number))))
    return found.resampled(number)


def _check_margin(caller: str, margin: int) -> None:
    if margin < 0:
        raise ValueError(f"{caller}: expected margin >= 0, got {margin}")


def _check_classes(classes: Tensor, num_classes: int | None, strength: Tensor | None) -> int:
    if classes.dim() != 2 or not classes.numel() or classes.is_floating_point():
        raise ValueError(
            "draw_preference_map: expected integer classes of shape (height, width), got "
            f"{tuple(classes.shape)} of {classes.dtype}"
        )
    number = int(classes.max()) + 1 if num_classes is None else num_classes
    if int(classes.min()) < 0 or int(classes.max()) >= number:
        raise ValueError(
            f"draw_preference_map: expected classes from 0 to {number - 1}, got "
            f"{int(classes.min())} to {int(classes.max())}"
        )
    if strength is not None and strength.shape != classes.shape:
        raise ValueError(
            f"draw_preference_map: expected strength of shape {tuple(classes.shape)}, got "
            f"{tuple(strength.shape)}"
        )
    return number
