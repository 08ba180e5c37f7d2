"""Lens spaces."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_manifolds.manifolds.spherical import SphericalQuotient
from pyro_manifolds.ops.arcs import unit

__all__ = ["LensSpace"]


class LensSpace(SphericalQuotient):
    r"""Lens space :math:`L(p; q) = S^3 / \mathbb{Z}_p`.

    A point is a pair of complex numbers with :math:`|z_1|^2 + |z_2|^2 = 1`, written as four reals
    :math:`(\Re z_1, \Im z_1, \Re z_2, \Im z_2)`, event shape ``(4,)``, up to
    :math:`(z_1, z_2) \mapsto (\omega z_1, \omega^q z_2)` with :math:`\omega = e^{2\pi i/p}`. In
    the canonical pair :math:`z_1` has its argument in :math:`[0, 2\pi/p)`; where
    :math:`z_1 = 0`, :math:`z_2` has. A point within rounding below the seam is moved onto it.

    ``embed`` lists real and imaginary parts of the invariants :math:`z_1^p, z_2^p,
    \bar z_1^q z_2, z_1 \bar z_2^r`, where :math:`rq \equiv 1` modulo :math:`p`. ``unembed``
    takes a root of the larger of the first two; it is singular where both vanish, and jumps where
    they have equal moduli, by nothing on the image of ``embed``. :math:`L(2; 1)` is better served
    by :class:`ProjectiveSpace`.

    Args:
        p: Order of the group, at least one.
        q: Relative speed of the rotations, coprime to ``p``; reduced modulo ``p``.

    Raises:
        ValueError: If ``p`` is not positive or has a common divisor with ``q``.

    Example:
        >>> lens = LensSpace(4, 1)
        >>> lens.project(torch.tensor([0.0, 0.6, 0.8, 0.0]))
        tensor([ 0.6000,  0.0000,  0.0000, -0.8000])
    """

    name = "LensSpace"
    embed_dim = 8

    def __init__(self, p: int, q: int) -> None:
        super().__init__(3)
        if p < 1:
            raise ValueError(f"LensSpace: expected p of at least 1, got {p}")
        if math.gcd(p, q) != 1:
            raise ValueError(f"LensSpace: expected q coprime to p = {p}, got {q}")
        self.p = self.num_sheets = p
        self.q = q % p
        self.volume = 2 * math.pi**2 / p
        self.periods = (2 * math.pi / p,)
        self._inverse_q = pow(q, -1, p)
        roots = [_root_of_unity(k, p) for k in range(p)]
        self._rotations = tuple(roots[k] + roots[k * self.q % p] for k in range(p))

    def _key(self) -> tuple[object, ...]:
        return (self.p, self.q)

    def act(self, x: Tensor, sheet: Tensor) -> Tensor:
        rotations = torch.tensor(self._rotations, dtype=x.dtype, device=x.device)
        # Indexing by a tensor without dimensions is no operation of vmap, an embedding always is.
        rotation = torch.nn.functional.embedding(sheet % self.p, rotations)
        return _multiply(_pairs(x), _pairs(rotation)).flatten(-2)

    def canonical_sheet(self, x: Tensor) -> Tensor:
        z = _pairs(x.detach())
        sectors = torch.atan2(z[..., 1], z[..., 0]) * (self.p / (2 * math.pi))
        first, second = torch.floor(sectors + self._slack(x)).long().unbind(-1)
        on_axis = (z[..., 0, :] == 0).all(-1)
        return torch.where(on_axis, -self._inverse_q * second, -first) % self.p

    def project(self, x: Tensor) -> Tensor:
        z = _pairs(super().project(x))
        re, im = z.unbind(-1)
        on_axis = (z[..., 0, :] == 0).all(-1)
        leads = torch.stack([~on_axis, on_axis], -1)
        below_seam = leads & (im < 0) & (im > -8 * self._slack(x) / self.p * re)
        im = torch.where(below_seam, im - im.detach(), im)
        return torch.stack([re, im], -1).flatten(-2)

    def _slack(self, x: Tensor) -> float:
        """Width in sectors of the strip below the seam that counts as the seam."""
        return 8 * self.p * torch.finfo(x.dtype).eps

    def embed(self, y: Tensor) -> Tensor:
        z1, z2 = _pairs(y).unbind(-2)
        invariants = [
            _power(z1, self.p),
            _power(z2, self.p),
            _multiply(_power(_conj(z1), self.q), z2),
            _multiply(z1, _power(_conj(z2), self._inverse_q)),
        ]
        return torch.cat(invariants, -1)

    def unembed(self, a: Tensor) -> Tensor:
        a1, a2, a3, a4 = a.unflatten(-1, (4, 2)).unbind(-2)
        first_leads = (a1.square().sum(-1) >= a2.square().sum(-1)).unsqueeze(-1)
        power = torch.where(first_leads, self.q, self._inverse_q).to(a.dtype)
        lead, other = torch.where(first_leads, a1, a2), torch.where(first_leads, a3, a4)
        modulus, angle, vanishes = _safe_polar(lead)
        # The other coordinate, other / conj(root) ** power, times modulus ** (power / p): the same
        # point after normalisation, and nothing overflows where the lead is small.
        root = modulus ** ((power + 1) / self.p) * _phase(angle / self.p)
        root = torch.where(vanishes, 0, root)
        other = _multiply(other, _phase(angle * power / self.p))
        pair = torch.cat([root, other], -1), torch.cat([other, root], -1)
        return self.project(unit(torch.where(first_leads, *pair)))


def _pairs(x: Tensor) -> Tensor:
    """View four reals as two complex numbers: ``[..., 2, 2]``, real and imaginary parts last."""
    return x.unflatten(-1, (2, 2))


# Complex numbers are pairs of reals: the compiler has no code for complex dtypes.
def _multiply(a: Tensor, b: Tensor) -> Tensor:
    (a_re, a_im), (b_re, b_im) = a.unbind(-1), b.unbind(-1)
    return torch.stack([a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re], -1)


def _conj(a: Tensor) -> Tensor:
    return torch.stack([a[..., 0], -a[..., 1]], -1)


def _power(a: Tensor, exponent: int) -> Tensor:
    """Raise to a whole power by repeated squaring."""
    if exponent == 0:
        return torch.stack([torch.ones_like(a[..., 0]), torch.zeros_like(a[..., 1])], -1)
    if exponent == 1:
        return a
    half = _power(a, exponent // 2)
    square = _multiply(half, half)
    return _multiply(square, a) if exponent % 2 else square


def _phase(angle: Tensor) -> Tensor:
    return torch.cat([angle.cos(), angle.sin()], -1)


def _safe_polar(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return modulus and argument, ``[..., 1]`` each, those of 1 at zero, and where it is zero."""
    vanishes = a.square().sum(-1, keepdim=True) < torch.finfo(a.dtype).tiny
    re, im = torch.where(vanishes, 1, a[..., :1]), torch.where(vanishes, 0, a[..., 1:])
    return (re.square() + im.square()).sqrt(), torch.atan2(im, re), vanishes


def _root_of_unity(k: int, p: int) -> tuple[float, float]:
    """Return cosine and sine of k / p turns, exact at quarter turns."""
    quarters, rest = divmod(4 * k, p)
    cos, sin = math.cos(math.pi / 2 * rest / p), math.sin(math.pi / 2 * rest / p)
    return [(cos, sin), (-sin, cos), (-cos, -sin), (sin, -cos)][quarters % 4]
