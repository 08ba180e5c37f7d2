r"""Wirtinger calculus: derivatives by complex variables and by their conjugates.

With :math:`z = x + iy`, these are :math:`\partial = \frac12 (\partial_x - i \partial_y)` and
:math:`\bar\partial = \frac12 (\partial_x + i \partial_y)`. ``torch.func.jacfwd``, ``jacrev`` and
``hessian`` refuse complex arguments, so that everything here differentiates a real view.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad

from pyro_manifolds.ops.complex_linalg import join_parts, split_parts
from pyro_manifolds.ops.volume_element import jacobian

__all__ = [
    "mixed_hessian",
    "mixed_to_real_hessian",
    "real_to_mixed_hessian",
    "wirtinger",
]


def wirtinger(function: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the two Wirtinger derivatives of a map, by :math:`2n` forward derivatives.

    To first order, :math:`f(z + w) = f(z) + \partial f\, w + \bar\partial f\, \bar w`. A map is
    holomorphic where the second one vanishes. For a real function the second is the conjugate of
    the first, and torch's ``.grad`` is twice the second.

    References:
        | The Complex Gradient Operator and the CR-Calculus (Kreutz-Delgado, 2009)
        | https://arxiv.org/abs/0906.4835

    Args:
        function: Map of complex ``[..., n]`` to real or complex values, of which the leading
            dimensions are those of its argument: no point may influence the image of another.
        z: Points, complex, shape ``[..., n]``. A scalar is a point of dimension one.

    Returns:
        :math:`\partial f` and :math:`\bar\partial f`, complex, of the shape of ``function(z)``
        and one more dimension ``n``, which a scalar ``z`` does not add.

    Raises:
        ValueError: If ``z`` is not complex.

    Example:
        >>> from pyro_manifolds.geometry import wirtinger
        >>> d, dbar = wirtinger(lambda z: z.square() * z.conj(), torch.tensor(0.3 + 0.4j))
        >>> d, dbar  # 2 |z|^2 and z^2
        (tensor(0.5000+0.j), tensor(-0.0700+0.2400j))
    """
    _check_complex("wirtinger", z)
    if not z.dim():
        derivatives = wirtinger(lambda w: function(w.squeeze(-1)), z.unsqueeze(-1))
        return derivatives[0].squeeze(-1), derivatives[1].squeeze(-1)
    slopes = jacobian(lambda parts: function(join_parts(parts)), split_parts(z))
    by_x, by_y = slopes.chunk(2, -1)
    return (by_x - 1j * by_y) / 2, (by_x + 1j * by_y) / 2


def mixed_hessian(function: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the mixed Hessian of a real function and its (2, 0) part.

    These are :math:`g_{ij} = \partial_i \bar\partial_j \varphi`, a Hermitian matrix (the Levi
    form, and the metric of which :math:`\varphi` is a Kähler potential), and
    :math:`h_{ij} = \partial_i \partial_j \varphi`, a symmetric one. To second order,

    .. math:: \varphi(z + w) = \varphi(z) + 2 \operatorname{Re} \partial_i \varphi\, w_i
        + g_{ij} w_i \bar w_j + \operatorname{Re} h_{ij} w_i w_j.

    Write :math:`|w|^2` as ``w.real**2 + w.imag**2``: torch gives ``w.abs()**2`` a Hessian of zero
    at zero.

    Args:
        function: Real function of complex ``[..., n]``, of shape ``[...]``: no point may
            influence the value at another.
        z: Points, complex, shape ``[..., n]``. A scalar is a point of dimension one.

    Returns:
        ``g`` and ``h``, complex, of shape ``[..., n, n]``; scalars for a scalar ``z``.

    Raises:
        ValueError: If ``z`` is not complex.

    Example:
        >>> from pyro_manifolds.geometry import mixed_hessian
        >>> def phi(z):
        ...     return (z.real**2 + z.imag**2) ** 2
        >>> g, h = mixed_hessian(phi, torch.tensor(0.3 + 0.4j))
        >>> g, h  # 4 |z|^2 and 2 conj(z)^2
        (tensor(1.+0.j), tensor(-0.1400-0.4800j))
    """
    _check_complex("mixed_hessian", z)
    if not z.dim():
        g, h = mixed_hessian(lambda w: function(w.squeeze(-1)), z.unsqueeze(-1))
        return g.squeeze(-1).squeeze(-1), h.squeeze(-1).squeeze(-1)
    gradient = grad(lambda parts: function(join_parts(parts)).sum())
    return real_to_mixed_hessian(jacobian(gradient, split_parts(z)))


def real_to_mixed_hessian(hessian: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return ``g`` and ``h`` of :func:`mixed_hessian` from a Hessian in the real view.

    Args:
        hessian: Symmetric real matrices of shape ``[..., 2n, 2n]``, real parts first.

    Example:
        >>> from pyro_manifolds.geometry import real_to_mixed_hessian
        >>> real_to_mixed_hessian(torch.tensor([[2.0, 4.0], [4.0, 2.0]]))  # of |z|^2 + 4 x y
        (tensor([[1.+0.j]]), tensor([[0.-2.j]]))
    """
    (xx, xy), (yx, yy) = (rows.chunk(2, -1) for rows in hessian.chunk(2, -2))
    g = torch.complex(xx + yy, xy - yx) / 4
    return g, torch.complex(xx - yy, -(xy + yx)) / 4


def mixed_to_real_hessian(g: Tensor, h: Tensor) -> Tensor:
    """Return the Hessian in the real view: the inverse of :func:`real_to_mixed_hessian`.

    With ``h`` of zero, this is the real metric that a Hermitian matrix ``g`` stands for.

    Args:
        g: Hermitian matrices, shape ``[..., n, n]``.
        h: Symmetric complex matrices of the same shape.

    Example:
        >>> from pyro_manifolds.geometry import mixed_to_real_hessian
        >>> mixed_to_real_hessian(torch.tensor([[1.0 + 0j]]), torch.tensor([[-2j]]))
        tensor([[2., 4.],
                [4., 2.]])
    """
    plus, minus = g + h, g - h
    top = torch.cat([plus.real, minus.imag], -1)
    return 2 * torch.cat([top, torch.cat([-plus.imag, minus.real], -1)], -2)


def _check_complex(caller: str, z: Tensor) -> None:
    if not z.is_complex():
        raise ValueError(f"{caller}: expected complex z, got {z.dtype}")
