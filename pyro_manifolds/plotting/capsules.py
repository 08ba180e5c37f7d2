"""Sequences of images, and what rolled capsules decode to, as rows of small pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from torch import Tensor

from pyro_manifolds.geometry.capsules import roll_capsules

__all__ = ["draw_capsule_traversal", "draw_sequences"]


def draw_sequences(ax: Axes, images: Tensor, *, gap: int = 1, cmap: str = "gray") -> AxesImage:
    """Draw sequences of images, a row for each sequence and a column for each frame.

    Args:
        ax: Axes.
        images: Intensities from 0 to 1, ``(n, S, H, W)``, or ``(n, S, 3, H, W)`` for colours.
        gap: Pixels between images.
        cmap: Name of a colour map of matplotlib, for images without colours.

    Returns:
        The picture, in which a unit is a pixel of an image.

    Raises:
        ValueError: If the shape is another, or ``gap`` is negative.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from pyro_manifolds.plotting import draw_sequences
        >>> picture = draw_sequences(Figure().subplots(), torch.rand(3, 6, 28, 28))
        >>> picture.get_array().shape
        (86, 173, 4)
    """
    _check_images("draw_sequences", images, 4)
    if gap < 0:
        raise ValueError(f"draw_sequences: expected gap >= 0, got {gap}")
    pictures = _colours(images, cmap)
    return _draw_rows(ax, pictures, gap, [str(k) for k in range(images.shape[1])], "frame")


def draw_capsule_traversal(
    ax: Axes,
    images: Tensor,
    codes: Tensor,
    decode: Callable[[Tensor], Tensor],
    *,
    shifts: Sequence[int] | None = None,
    gap: int = 1,
    cmap: str = "gray",
) -> AxesImage:
    """Draw frames, and beside each what its code decodes to when the capsules are rolled.

    Where the code has learned the transformation, a row runs through it.

    Args:
        ax: Axes.
        images: Frames ``(n, H, W)`` or ``(n, 3, H, W)``, intensities from 0 to 1.
        codes: Codes of these frames, ``(n, C, D)``: C capsules of D slots.
        decode: Function of codes ``(n, C, D)`` to images of the shape of ``images``, such as the
            mean of the likelihood.
        shifts: Numbers of slots to roll by; 0 to D - 1 by default.
        gap: Pixels between images.
        cmap: Name of a colour map of matplotlib, for images without colours.

    Returns:
        The picture, in which a unit is a pixel of an image.

    Raises:
        ValueError: If shapes do not fit, there are no shifts, or ``gap`` is negative.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from pyro_manifolds.plotting import draw_capsule_traversal
        >>> images, codes = torch.rand(2, 8, 8), torch.rand(2, 3, 6)
        >>> def decode(codes):
        ...     return codes[:, 0, :1, None] * images
        >>> ax = Figure().subplots()
        >>> picture = draw_capsule_traversal(ax, images, codes, decode)
        >>> [text.get_text() for text in ax.get_xticklabels()]
        ['frame', '0', '1', '2', '3', '4', '5']
    """
    caller = "draw_capsule_traversal"
    _check_images(caller, images, 3)
    if codes.dim() != 3 or len(codes) != len(images):
        raise ValueError(
            f"{caller}: expected codes of shape ({len(images)}, C, D), got {tuple(codes.shape)}"
        )
    chosen = range(codes.shape[-1]) if shifts is None else shifts
    if not len(chosen) or gap < 0:
        raise ValueError(
            f"{caller}: expected one or more shifts and gap >= 0, got {tuple(chosen)} and {gap}"
        )
    with torch.no_grad():
        decoded = [decode(roll_capsules(codes, shift)).to(images) for shift in chosen]
    if any(found.shape != images.shape for found in decoded):
        raise ValueError(
            f"{caller}: expected decode to return images of shape {tuple(images.shape)}, "
            f"got {tuple(decoded[0].shape)}"
        )
    pictures = _colours(torch.stack([images, *decoded], 1), cmap)
    return _draw_rows(ax, pictures, gap, ["frame", *map(str, chosen)], "roll of the code")


def _check_images(caller: str, images: Tensor, gray_dim: int) -> None:
    coloured = images.dim() == gray_dim + 1 and images.shape[-3] == 3
    if not (images.dim() == gray_dim or coloured) or not images.numel():
        front = ["n", "S"][: gray_dim - 2]
        shapes = [f"({', '.join([*front, *end])})" for end in (["H", "W"], ["3", "H", "W"])]
        raise ValueError(
            f"{caller}: expected images of shape {' or '.join(shapes)} and not empty, "
            f"got {tuple(images.shape)}"
        )


def _colours(images: Tensor, cmap: str) -> Tensor:
    """Return red, green, blue and opacity of ``(n, S, ...)`` images, ``(n, S, H, W, 4)``."""
    pixels = images.detach().cpu().float().clamp(0, 1)
    if images.dim() == 4:
        return torch.as_tensor(colormaps[cmap](pixels.numpy())).float()
    opaque = torch.ones_like(pixels[:, :, :1])
    return torch.cat([pixels, opaque], 2).movedim(2, -1)


def _draw_rows(
    ax: Axes, pictures: Tensor, gap: int, columns: Sequence[str], label: str
) -> AxesImage:
    rows, number, height, width, _ = pictures.shape
    # Gaps are transparent: they show the background of the axes.
    padded = torch.zeros(rows, number, height + gap, width + gap, 4)
    padded[:, :, :height, :width] = pictures
    joined = padded.transpose(1, 2).reshape(rows * (height + gap), number * (width + gap), 4)
    joined = joined[: joined.shape[0] - gap, : joined.shape[1] - gap]
    picture = ax.imshow(joined.numpy(), interpolation="nearest")
    centres = [k * (width + gap) + (width - 1) / 2 for k in range(number)]
    ax.set_xticks(centres, columns)
    ax.set_yticks([])
    ax.set_xlabel(label)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return picture
