"""The rotations of space."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor

from pyro_manifolds.manifolds.geodesic import GeodesicManifold
from pyro_manifolds.manifolds.sphere import Sphere
from pyro_manifolds.ops.arcs import (
    arc_exp,
    arc_length,
    arc_log,
    arc_transport,
    arc_transport_between,
    unit,
)
from pyro_manifolds.ops.eigen import leading_eigenvector
from pyro_manifolds.ops.repulsion import log_singular_gaps_weight

__all__ = ["SO3"]

_EVENT = (-2, -1)


class SO3(GeodesicManifold):
    r"""Rotations of space, :math:`SO(3) = S^3 / \pm 1`, as matrices.

    A point is a rotation matrix, event shape ``(3, 3)``; the cover are the unit quaternions
    :math:`(w, x, y, z)`. Lengths and volumes are those of the quaternions: the volume is
    :math:`\pi^2` and the distance half the angle of the rotation in between, so that a quarter
    turn is :math:`\pi/4` long. Tangent vectors at :math:`R` are the matrices :math:`R \Omega` with
    :math:`\Omega` skew, and :math:`\langle U, V \rangle = \operatorname{tr}(U^\top V) / 8`.

    ``embed`` lists the nine entries row by row, :math:`|R - R'| = 2\sqrt2 \sin d(R, R')`.
    ``unembed`` is the nearest rotation to any matrix, singular where the smallest singular value
    equals the middle one times minus the sign of the determinant; the identity at zero. The
    canonical lift is the quaternion whose first coordinate other than zero is positive.

    To turn vectors in a model write ``(rotation @ x[..., None])[..., 0]``, which is right under
    plates and vectorised particles, where ``x @ rotation.mT`` would be a batch of matrix products.

    Example:
        >>> so3 = SO3()
        >>> quarter_turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        >>> so3.dist(torch.eye(3), quarter_turn)
        tensor(0.7854)
        >>> so3.lift(quarter_turn)
        tensor([0.7071, 0.0000, 0.0000, 0.7071])
    """

    name = "SO3"
    ndim = 2
    dim = 3
    embed_dim = 9
    event_shape = Size([3, 3])
    scale_shape = Size()
    volume = math.pi**2
    periods = (math.pi,)
    num_sheets = 2

    @property
    def cover(self) -> Sphere:
        """The unit quaternions."""
        return Sphere(3)

    def project(self, x: Tensor) -> Tensor:
        """Map unit quaternions to rotation matrices."""
        return _polar_form(x, x)

    def lift(self, y: Tensor) -> Tensor:
        """Map rotation matrices to the unit quaternions with a positive first coordinate."""
        identity = torch.eye(4, dtype=y.dtype, device=y.device)
        squares = _quadratic_form(y) + identity  # four times the outer square of the quaternion
        largest = squares.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None]
        row = squares.gather(-2, largest.expand(*largest.shape[:-1], 4)).squeeze(-2)
        return _positive(unit(row))

    def deck(self, x: Tensor) -> Tensor:
        """Return both unit quaternions of a rotation: ``[2, *x.shape]``."""
        return torch.stack([x, -x])

    def embed(self, y: Tensor) -> Tensor:
        return y.flatten(-2)

    def unembed(self, a: Tensor) -> Tensor:
        return self.projx(a.unflatten(-1, (3, 3)))

    def preimage(self, y: Tensor) -> Tensor:
        # Apart and positive, the singular values are about those of a normal matrix.
        return (y * torch.tensor([2.5, 1.5, 0.5], dtype=y.dtype, device=y.device)).flatten(-2)

    def log_repulsion(self, a: Tensor, power: float) -> Tensor:
        return log_singular_gaps_weight(a.unflatten(-1, (3, 3)), power)

    def log_prob_unembed(self, y: Tensor) -> Tensor:
        """Uniform: rotations leave a normal matrix as it is and move the nearest rotation."""
        return self._log_prob_uniform(y)

    def projx(self, x: Tensor) -> Tensor:
        return self.project(leading_eigenvector(_quadratic_form(x)))

    def contains(self, x: Tensor) -> Tensor:
        gram = (x.unsqueeze(-1) * x.unsqueeze(-2)).sum(-3)
        error = (gram - torch.eye(3, dtype=x.dtype, device=x.device)).abs().amax(_EVENT)
        first, second, third = x.unbind(-1)
        orientation = (torch.linalg.cross(first, second) * third).sum(-1)
        return (error < 30 * torch.finfo(x.dtype).eps) & (orientation > 0)

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        q = self.lift(x)
        return self.project(arc_exp(q, _pull(q, u)))

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        q, nearest = self._lift_pair(x, y)
        return _push(q, arc_log(q, nearest))

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        length = arc_length(*self._lift_pair(x, y))
        return length[..., None, None] if keepdim else length

    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        q, nearest = self._lift_pair(x, y)
        return _push(nearest, arc_transport_between(q, nearest, _pull(q, v)))

    def transp_follow_expmap(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        q = self.lift(x)
        step = _pull(q, u)
        return _push(arc_exp(q, step), arc_transport(q, step, _pull(q, v)))

    def inner(
        self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False
    ) -> Tensor:
        product = u * (u if v is None else v)
        product = product.expand(torch.broadcast_shapes(x.shape, product.shape))
        return product.sum(_EVENT, keepdim=keepdim) / 8

    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        u = u.expand(torch.broadcast_shapes(x.shape, u.shape))
        return torch.linalg.vector_norm(u, dim=_EVENT, keepdim=keepdim) / math.sqrt(8)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return (u - x @ u.mT @ x) / 2

    def egrad2rgrad(self, x: Tensor, u: Tensor) -> Tensor:
        return 8 * self.proju(x, u)  # the gradient for the metric tr(U^T V) / 8

    def _lift_pair(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Lift both points, the second one to the sheet that is nearest to the first."""
        q, r = self.lift(x), self.lift(y)
        return q, torch.where((q * r).sum(-1, keepdim=True) < 0, -r, r)

    def _check_vector_on_tangent(
        self, x: Tensor, u: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5
    ) -> tuple[bool, str | None]:
        symmetric = x.mT @ u + u.mT @ x
        if torch.allclose(symmetric, torch.zeros_like(symmetric), atol=atol, rtol=rtol):
            return True, None
        return False, f"some vectors are not tangent to {self}: x^T u is not skew"

    def _sample_uniform(
        self, batch: Size, dtype: torch.dtype | None, device: torch.device | None
    ) -> Tensor:
        return self.project(unit(torch.randn(*batch, 4, dtype=dtype, device=device)))


def _polar_form(q: Tensor, r: Tensor) -> Tensor:
    """Return the symmetric bilinear form of which the rotation of a quaternion is the square."""
    products = q.unsqueeze(-1) * r.unsqueeze(-2)
    (ww, wx, wy, wz), (_, xx, xy, xz), (_, _, yy, yz), (_, _, _, zz) = [
        row.unbind(-1) for row in (products + products.mT).unbind(-2)
    ]
    entries = [
        *((ww + xx - yy - zz) / 2, xy - wz, xz + wy),
        *(xy + wz, (ww - xx + yy - zz) / 2, yz - wx),
        *(xz - wy, yz + wx, (ww - xx - yy + zz) / 2),
    ]
    return torch.stack(entries, -1).unflatten(-1, (3, 3))


def _quadratic_form(m: Tensor) -> Tensor:
    """Return the matrix B with q^T B q = tr(m^T R(q)) for every quaternion q."""
    (a, b, c), (d, e, f), (g, h, i) = [row.unbind(-1) for row in m.unbind(-2)]
    rows = [
        *(a + e + i, h - f, c - g, d - b),
        *(h - f, a - e - i, b + d, c + g),
        *(c - g, b + d, e - a - i, f + h),
        *(d - b, c + g, f + h, i - a - e),
    ]
    return torch.stack(rows, -1).unflatten(-1, (4, 4))


def _positive(q: Tensor) -> Tensor:
    """Choose the sign that makes the first coordinate other than zero positive."""
    first = (q != 0).to(torch.uint8).argmax(-1, keepdim=True)
    return torch.where(q.detach().gather(-1, first) < 0, -q, q)


def _push(q: Tensor, u: Tensor) -> Tensor:
    """Map a tangent vector at the quaternion ``q`` to one at its rotation."""
    return 2 * _polar_form(q, u)


def _pull(q: Tensor, v: Tensor) -> Tensor:
    """Map a tangent vector at the rotation of ``q`` to one at ``q``: the inverse of the push."""
    # The push multiplies squared lengths by 8, so that its inverse is an eighth of its adjoint.
    u = (_quadratic_form(v) @ q.unsqueeze(-1)).squeeze(-1) / 4
    return u - (q * u).sum(-1, keepdim=True) * q
