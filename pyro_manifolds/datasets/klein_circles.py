"""Klein-Circles: pictures of a disc on a Klein bottle, one picture for each point of it."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "KleinCircles",
    "KleinCirclesSplit",
    "klein_circle",
    "klein_circles",
    "split_klein_circles",
]

_RADIUS = 0.3
_CHUNK = 4096  # images at a time: bounds the working memory near 60 MB at 30 x 30


class KleinCircles(NamedTuple):
    """Images of Klein-Circles with the points of the Klein bottle that they show.

    Attributes:
        images: Zeros and ones, shape ``(n, size, size)``.
        points: Canonical angles ``(t1, t2)`` in [0, π) × [−π, π), shape ``(n, 2)``.
    """

    images: Tensor
    points: Tensor


class KleinCirclesSplit(NamedTuple):
    """Three disjoint parts of one :class:`KleinCircles`."""

    train: KleinCircles
    validation: KleinCircles
    test: KleinCircles


def klein_circle(u: Tensor | float, v: Tensor | float, size: int) -> Tensor:
    r"""Draw a disc of radius 0.3 on the unit square glued into a Klein bottle.

    Pixel :math:`(a, b)` sits at :math:`v = a/(P-1)`, :math:`u = b/(P-1)` for ``size`` :math:`P`.
    It is on if and only if some lift of the centre,
    :math:`(u + k, (-1)^k v + l)` with integers :math:`k, l`, is less than 0.3 away. Hence
    ``klein_circle(u, v, P)`` equals ``klein_circle(u + 1, -v, P)`` and
    ``klein_circle(u, v + 1, P)``: the picture is a function of the point
    :math:`(t_1, t_2) = (\pi u, 2 \pi v)` of :class:`~pyro_manifolds.manifolds.KleinBottle`.

    References:
        | Reparameterization through Coverings and Topological Weight Priors
          (Beketov and Snopov, 2026)
        | https://arxiv.org/abs/2604.23804
        | The definition here is exact. Public code for that paper draws too few translates, which
          cuts the disc at the ``v`` seam for some centres.

    Args:
        u: First coordinate of the centre, any finite number; broadcasts with ``v``.
        v: Second coordinate of the centre.
        size: Pixels along each side, at least 2.

    Returns:
        Zeros and ones, shape ``broadcast(u, v).shape + (size, size)``, in the dtype of the centre.

    Raises:
        ValueError: If ``size`` is below 2 or a coordinate is not finite.

    Example:
        >>> klein_circle(torch.tensor([0.2, 0.95]), torch.tensor([0.7, 0.1]), 15).sum((-1, -2))
        tensor([58., 71.])
    """
    _check_size("klein_circle", size)
    centre = torch.stack(torch.broadcast_tensors(torch.as_tensor(u), torch.as_tensor(v)))
    if not torch.isfinite(centre).all():
        raise ValueError("klein_circle: expected finite coordinates u and v, got nan or infinity")
    dtype = centre.dtype if centre.is_floating_point() else torch.get_default_dtype()
    return _disc(centre[0].double(), centre[1].double(), size).to(dtype)


def klein_circles(
    num_images: int, size: int = 30, *, seed: int, dtype: torch.dtype = torch.uint8
) -> KleinCircles:
    """Draw images whose centres are uniform on the Klein bottle.

    Every image is :func:`klein_circle` of its own point: ``u = t1 / π`` and ``v = t2 / 2π``.

    Args:
        num_images: How many images, at least 1.
        size: Pixels along each side, at least 2.
        seed: Seed of the centres; the global generator is left alone.
        dtype: Of the images. One byte a pixel by default: cast a minibatch, not the data set.

    Returns:
        Images and points; the points have the default dtype of torch.

    Raises:
        ValueError: If ``num_images`` is below 1 or ``size`` is below 2.

    Example:
        >>> images, points = klein_circles(100, 15, seed=0)
        >>> images.shape, images.dtype, points.shape
        (torch.Size([100, 15, 15]), torch.uint8, torch.Size([100, 2]))
    """
    _check_size("klein_circles", size)
    if num_images < 1:
        raise ValueError(f"klein_circles: expected num_images >= 1, got {num_images}")
    points = _uniform_points(num_images, seed)
    u, v = (points.double() / points.new_tensor([math.pi, 2 * math.pi])).unbind(-1)
    images = torch.empty(num_images, size, size, dtype=dtype)
    for start in range(0, num_images, _CHUNK):
        part = slice(start, start + _CHUNK)
        images[part] = _disc(u[part], v[part], size)
    return KleinCircles(images, points)


def split_klein_circles(data: KleinCircles, *, seed: int) -> KleinCirclesSplit:
    """Split at random into 80 % for training, 10 % for validation and the rest for testing.

    Args:
        data: At least ten images, so that no part is empty.
        seed: Seed of the permutation; the global generator is left alone.

    Returns:
        Three disjoint parts that together hold every image once.

    Raises:
        ValueError: If there are fewer than ten images, or not one point for each.

    Example:
        >>> split = split_klein_circles(klein_circles(50, 15, seed=0), seed=1)
        >>> [len(part.images) for part in split]
        [40, 5, 5]
    """
    num = len(data.images)
    if num < 10 or len(data.points) != num:
        raise ValueError(
            "split_klein_circles: expected at least 10 images and as many points, "
            f"got {num} and {len(data.points)}"
        )
    order = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
    parts = order.tensor_split((8 * num // 10, 9 * num // 10))
    return KleinCirclesSplit(*(KleinCircles(data.images[i], data.points[i]) for i in parts))


def _check_size(name: str, size: int) -> None:
    if size < 2:
        raise ValueError(f"{name}: expected size >= 2 pixels a side, got {size}")


def _disc(u: Tensor, v: Tensor, size: int) -> Tensor:
    # Lifts with even k are the lattice (u, v) + (2Z, Z), those with odd k (u + 1, -v) + (2Z, Z).
    # On a rectangular lattice the nearest point is found one coordinate at a time.
    pixel = torch.arange(size, dtype=u.dtype, device=u.device) / (size - 1)
    u, v = u.unsqueeze(-1), v.unsqueeze(-1)
    return _near_lattice(pixel - u, pixel - v) | _near_lattice(pixel - u - 1, pixel + v)


def _near_lattice(du: Tensor, dv: Tensor) -> Tensor:
    du = du - 2 * (du / 2).round()
    dv = dv - dv.round()
    return dv.square().unsqueeze(-1) + du.square().unsqueeze(-2) < _RADIUS**2


def _uniform_points(num: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    u, v = torch.rand(2, num, generator=generator, dtype=torch.float64)
    t1, t2 = math.pi * u, 2 * math.pi * (v - (v >= 0.5).double())
    t1, t2 = (t.to(torch.get_default_dtype()) for t in (t1, t2))
    # The cast can round up to the excluded end of an interval: take the canonical representative.
    t1, t2 = torch.where(t1 >= math.pi, 0, t1), torch.where(t1 >= math.pi, -t2, t2)
    return torch.stack([t1, torch.where(t2 >= math.pi, -t2, t2)], -1)
