"""Coordinates of patches: discrete cosines, orthonormal for the contrast of neighbours."""

import math

import torch
from torch import Tensor

from pyro_manifolds.ops.filters import check_kernel_size

__all__ = ["d_norm", "dct_basis", "patch_to_sphere", "sphere_to_patch"]

# Lee, Pedersen and Mumford's e1 ... e8 before scaling, row by row.
_COSINES = (
    (1, 0, -1, 1, 0, -1, 1, 0, -1),
    (1, 1, 1, 0, 0, 0, -1, -1, -1),
    (1, -2, 1, 1, -2, 1, 1, -2, 1),
    (1, 1, 1, -2, -2, -2, 1, 1, 1),
    (1, 0, -1, 0, 0, 0, -1, 0, 1),
    (1, 0, -1, -2, 0, 2, 1, 0, -1),
    (1, -2, 1, 0, 0, 0, -1, 2, -1),
    (1, -2, 1, -2, 4, -2, 1, -2, 1),
)


def dct_basis(kernel_size: int = 3) -> Tensor:
    r"""Discrete cosines that are orthonormal for the D-norm.

    The columns :math:`e_1, \dots, e_{k^2-1}` are the non-constant eigenvectors of :math:`D`,
    scaled to :math:`e_i^\top D e_j = \delta_{ij}`: products of the cosines
    :math:`\cos(\pi m (i + \tfrac12) / k)` along rows and columns. For 3 by 3 pixels they have the
    order and the signs of the papers named in :func:`patch_sphere`; for more they are sorted by
    eigenvalue, the one that varies along the rows first.

    Args:
        kernel_size: Pixels along each side, odd and at least 3.

    Returns:
        Shape ``(kernel_size**2, kernel_size**2 - 1)``, float64; rows are pixels, row by row.

    Raises:
        ValueError: If the size is not odd or below 3.

    Example:
        >>> dct_basis()[:3, 0]
        tensor([ 0.4082,  0.0000, -0.4082], dtype=torch.float64)
        >>> dct_basis(5).shape
        torch.Size([25, 24])
    """
    check_kernel_size("dct_basis", kernel_size)
    if kernel_size == 3:
        cosines = torch.tensor(_COSINES, dtype=torch.float64)
    else:
        cosines = _cosines(kernel_size)
    patches = cosines.unflatten(-1, (kernel_size, kernel_size))
    return (cosines / d_norm(patches).unsqueeze(-1)).mT


def d_norm(patches: Tensor) -> Tensor:
    r"""Contrast of a patch: root of the summed squared differences of neighbouring pixels.

    This is :math:`\|x\|_D = \sqrt{x^\top D x}` with :math:`D` the Laplacian of the grid graph in
    which each pixel has up to four neighbours. It ignores the mean and is zero on flat patches
    only.

    Args:
        patches: Shape ``batch + (height, width)``.

    Returns:
        Shape ``batch``.

    Raises:
        ValueError: If there are fewer than two dimensions.

    Example:
        >>> d_norm(torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
        tensor(1.4142)
    """
    if patches.dim() < 2:
        raise ValueError(
            f"d_norm: expected patches of shape (..., h, w), got {tuple(patches.shape)}"
        )
    across, down = patches.diff(dim=-1), patches.diff(dim=-2)
    return (across.square().sum((-1, -2)) + down.square().sum((-1, -2))).sqrt()


def patch_to_sphere(patches: Tensor) -> Tensor:
    """Direction of a patch: its unit vector of coordinates in :func:`dct_basis`.

    Args:
        patches: Shape ``batch + (k, k)`` with an odd k; mean and contrast do not matter.

    Returns:
        Shape ``batch + (k * k - 1,)``.

    Raises:
        ValueError: If the shape is wrong, or a patch is flat and has no direction.

    Example:
        >>> patch_to_sphere(torch.tensor([[3.0, 2.0, 1.0]]).expand(3, 3)).round(decimals=3)[:2]
        tensor([1., 0.])
    """
    size = patches.shape[-1] if patches.dim() > 1 else 0
    if patches.shape[-2:] != (size, size) or not _is_kernel_size(size):
        raise ValueError(
            "patch_to_sphere: expected patches of shape (..., k, k) with an odd k of at least 3, "
            f"got {tuple(patches.shape)}"
        )
    if not (d_norm(patches) > 0).all():
        raise ValueError("patch_to_sphere: expected patches with contrast, got a flat one or nan")
    basis = dct_basis(size)
    dual = (basis / basis.square().sum(0)).to(patches)  # columns are orthogonal, of any length
    return torch.nn.functional.normalize(patches.flatten(-2) @ dual, dim=-1, eps=0.0)


def sphere_to_patch(x: Tensor) -> Tensor:
    """Patch of zero mean with given coordinates in :func:`dct_basis`.

    Args:
        x: Shape ``batch + (k * k - 1,)`` with an odd k. On the unit sphere this is the inverse
            of :func:`patch_to_sphere`, and the patch has unit D-norm.

    Returns:
        Shape ``batch + (k, k)``.

    Raises:
        ValueError: If the last dimension is not such a number.

    Example:
        >>> sphere_to_patch(torch.eye(8)[1])
        tensor([[ 0.4082,  0.4082,  0.4082],
                [ 0.0000,  0.0000,  0.0000],
                [-0.4082, -0.4082, -0.4082]])
    """
    size = math.isqrt(x.shape[-1] + 1) if x.dim() else 0
    if x.shape[-1:] != (size**2 - 1,) or not _is_kernel_size(size):
        raise ValueError(
            "sphere_to_patch: expected x of shape (..., k * k - 1) with an odd k of at least 3, "
            f"got {tuple(x.shape)}"
        )
    return (x @ dct_basis(size).to(x).mT).unflatten(-1, (size, size))


def _is_kernel_size(size: int) -> bool:
    return size >= 3 and size % 2 == 1


def _cosines(size: int) -> Tensor:
    """Return the products of cosines, sorted by eigenvalue, shape ``(size**2 - 1, size**2)``."""
    frequency = torch.arange(size, dtype=torch.float64)
    one = (math.pi / size * frequency[:, None] * (frequency + 0.5)).cos()
    products = torch.einsum("ai,bj->abij", one, one).reshape(size**2, size**2)
    halves = 1 - (math.pi / size * frequency).cos()  # half the eigenvalues of the path
    values = (halves[:, None] + halves).flatten()
    # Equal eigenvalues may differ by rounding: those of (a, b) and (b, a) do not.
    return products[values.argsort(stable=True)[1:]]
