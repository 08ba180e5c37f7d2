r"""The complex normal distribution of one number, in real arithmetic.

A complex number is a pair of real tensors throughout. Products of real and complex tensors, and
even of complex ones, have wrong derivatives in TorchScript, and compilers do not fuse them.

The circularity :math:`\rho` comes with its gap :math:`1 - |\rho|^2`, which keeps its precision
where the modulus rounds to one. With :math:`s = \sqrt{1 - |\rho|^2}`, the pair

.. math:: a = \sqrt{(1 + s) / 2}, \qquad b = \rho / (2a)

makes :math:`a \varepsilon + b \bar\varepsilon` of circularity :math:`\rho` from a proper
:math:`\varepsilon`, and :math:`(a w - b \bar w) / s` takes it back.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Size, Tensor

__all__ = [
    "Circularity",
    "complex_normal_kl",
    "complex_normal_quadratic",
    "parts",
    "squared_modulus",
    "widely_linear",
]


def parts(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the real and the imaginary part.

    Example:
        >>> from pyro_manifolds.ops.complex_normal import parts
        >>> parts(torch.tensor([1 + 2j]))
        (tensor([1.]), tensor([2.]))
    """
    pairs = torch.view_as_real(z.resolve_conj())
    real, imag = pairs.movedim(-1, 0).contiguous().unbind()  # arithmetic on strides is slower
    return real, imag


def squared_modulus(z: Tensor) -> Tensor:
    r"""Return :math:`|z|^2`, real and with a derivative at zero.

    Example:
        >>> from pyro_manifolds.ops.complex_normal import squared_modulus
        >>> squared_modulus(torch.tensor(3 - 4j))
        tensor(25.)
    """
    x, y = parts(z)
    return torch.addcmul(x * x, y, y)


class Circularity(NamedTuple):
    r"""Circularity of an improper number, by its parts.

    Attributes:
        real: Real part of :math:`\rho`.
        imag: Imaginary part.
        gap: :math:`1 - |\rho|^2`.
        log_gap: Its logarithm, precise where the circularity is small, too.

    Example:
        >>> from pyro_manifolds.ops.complex_normal import Circularity
        >>> Circularity.of(torch.tensor(0.6 + 0.0j)).gap
        tensor(0.6400)
    """

    real: Tensor
    imag: Tensor
    gap: Tensor
    log_gap: Tensor

    @classmethod
    def of(cls, rho: Tensor) -> Circularity:
        """Take a complex number."""
        x, y = parts(rho)
        square = torch.addcmul(x * x, y, y)
        return cls(x, y, 1 - square, (-square).log1p())

    @classmethod
    def with_odds(cls, real: Tensor, imag: Tensor, odds: Tensor) -> Circularity:
        r"""Take the parts, and :math:`|\rho|^2 / (1 - |\rho|^2)` to full precision."""
        return cls(real, imag, 1 / (1 + odds), -odds.log1p())

    def expand(self, shape: Size) -> Circularity:
        """Expand every tensor."""
        return Circularity(*(tensor.expand(shape) for tensor in self))


def widely_linear(x: Tensor, y: Tensor, rho: Circularity, scale: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the parts of :math:`a w + b \bar w`, scaled, for :math:`w = x + iy`.

    The real matrix of this map is the symmetric root of the covariance of the two parts, up to a
    factor of two. Its derivatives across the radius stay bounded as the circularity tends to minus
    one, unlike those of the triangular root.

    Args:
        x: Real part.
        y: Imaginary part.
        rho: The circularity.
        scale: Real factor.

    Example:
        >>> from pyro_manifolds.ops.complex_normal import Circularity, widely_linear
        >>> one = torch.tensor(1.0)
        >>> widely_linear(one, 0 * one, Circularity.of(torch.tensor(0.5 - 0.3j)), one)
        (tensor(1.2146), tensor(-0.1576))
    """
    s = rho.gap.sqrt()
    g, k = 1 + s, scale * torch.add(2, s, alpha=2).rsqrt()
    left = torch.addcmul((g + rho.real) * x, rho.imag, y)
    right = torch.addcmul((g - rho.real) * y, rho.imag, x)
    return k * left, k * right


def complex_normal_quadratic(x: Tensor, y: Tensor, rho: Circularity) -> Tensor:
    r"""Return :math:`|a w - b \bar w|^2 / s^2` for :math:`w = x + iy`.

    That is :math:`(|w|^2 - \mathrm{Re}(\bar\rho w^2)) / (1 - |\rho|^2)`, as a sum of squares.

    Example:
        >>> from pyro_manifolds.ops.complex_normal import Circularity, complex_normal_quadratic
        >>> one = torch.tensor(1.0)
        >>> complex_normal_quadratic(one, 0 * one, Circularity.of(torch.tensor(0.5 - 0.3j)))
        tensor(0.7576)
    """
    g = 1 + rho.gap.sqrt()
    left = torch.addcmul((g - rho.real) * x, rho.imag, y, value=-1)
    right = torch.addcmul((g + rho.real) * y, rho.imag, x, value=-1)
    return torch.addcmul(left * left, right, right) / (2 * g * rho.gap)


def complex_normal_kl(
    shift: Tensor,
    q_scale: Tensor,
    p_scale: Tensor,
    q_rho: Circularity | None = None,
    p_rho: Circularity | None = None,
) -> Tensor:
    r"""Divergence of complex normals :math:`q` and :math:`p`, elementwise.

    Args:
        shift: Location of :math:`q` less that of :math:`p`, complex.
        q_scale: Scale of :math:`q`.
        p_scale: Scale of :math:`p`.
        q_rho: Circularity of :math:`q`, or nothing if it is proper.
        p_rho: Circularity of :math:`p`, or nothing.

    Example:
        >>> from pyro_manifolds.ops.complex_normal import complex_normal_kl
        >>> one = torch.tensor(1.0)
        >>> complex_normal_kl(torch.tensor(0.3 - 0.4j), 0.7 * one, one)
        tensor(0.4533)
    """
    precision = p_scale.square().reciprocal()
    ratio = q_scale.square() * precision
    kl = ratio - ratio.log() - 1
    if q_rho is not None:
        kl = torch.sub(kl, q_rho.log_gap, alpha=0.5)
    if p_rho is None:
        return torch.addcmul(kl, squared_modulus(shift), precision)
    # (1 - Re(conj(rho_p) rho_q)) / (1 - |rho_p|^2) - 1, of which the numerator is half of
    # (1 - |rho_p|^2) + (1 - |rho_q|^2) + |rho_q - rho_p|^2: no large terms cancel.
    x, y = (
        (p_rho.real, p_rho.imag)
        if q_rho is None
        else (p_rho.real - q_rho.real, p_rho.imag - q_rho.imag)
    )
    gap = 1 if q_rho is None else q_rho.gap
    excess = 0.5 * ((gap + x * x + y * y) / p_rho.gap - 1)
    kl = kl + ratio * excess + 0.5 * p_rho.log_gap
    return torch.addcmul(kl, complex_normal_quadratic(*parts(shift), p_rho), precision)
