"""Isometries of manifolds as transforms with a batch of group elements as parameters."""

from __future__ import annotations

import abc

import torch
from pyro.distributions.constraints import Constraint
from torch import Size, Tensor
from torch.distributions import Distribution

from pyro_manifolds.distributions.transforms.remembering import RememberingTransform
from pyro_manifolds.manifolds import (
    SO3,
    Circle,
    Cylinder,
    FlatManifold,
    KleinBottle,
    Manifold,
    MoebiusBand,
    ProjectiveSpace,
    Sphere,
    Torus,
)

__all__ = ["FlatIsometry", "GroupAction", "Rotation"]


class GroupAction(RememberingTransform):
    """Isometry of a manifold, one for each entry of a batch; its log-determinant is zero.

    The elements of the group are parameters, such as the output of an encoder: a law with its
    centre in the middle of a chart is carried to any place of the manifold, without a seam. The
    uniform law stays what it is, so that the divergence from it stays, too; see
    :class:`~pyro_manifolds.distributions.Moved`. ``manifold.unembed`` of a linear layer is a
    continuous way to an angle (of ``Circle()``) or a rotation (of ``SO3()``).

    References:
        | Embedding-reparameterization procedure for manifold-valued latent variables in
          generative models (Golikov and Kretov, 2018), arXiv 1812.02769

    Args:
        manifold: The manifold.
    """

    bijective = True

    def __init__(self, manifold: Manifold, cache_size: int = 0) -> None:
        super().__init__(cache_size=cache_size)
        self.manifold = manifold

    @property
    def domain(self) -> Constraint:  # type: ignore[override]
        return self.manifold.support

    @property
    def codomain(self) -> Constraint:  # type: ignore[override]
        return self.manifold.support

    @property
    @abc.abstractmethod
    def batch_shape(self) -> Size:
        """Shape of the batch of group elements."""

    @abc.abstractmethod
    def _elements(self) -> tuple[Tensor, ...]:
        """Return the parameters."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self) or other.manifold != self.manifold:
            return False
        pairs = zip(self._elements(), other._elements(), strict=True)
        return all(a is b or (a.shape == b.shape and bool((a == b).all())) for a, b in pairs)

    def __hash__(self) -> int:
        return hash((type(self), self.manifold))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.manifold}, batch_shape={tuple(self.batch_shape)})"

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        batch = x.shape[: x.dim() - self.manifold.ndim]
        return x.new_zeros(torch.broadcast_shapes(batch, self.batch_shape))

    def forward_shape(self, shape: Size) -> Size:
        batch = Size(shape)[: len(shape) - self.manifold.ndim]
        return torch.broadcast_shapes(batch, self.batch_shape) + self.manifold.event_shape

    def inverse_shape(self, shape: Size) -> Size:
        return self.forward_shape(shape)


def _validates(validate_args: bool | None) -> bool:
    return Distribution._validate_args if validate_args is None else validate_args


class Rotation(GroupAction):
    r"""Points multiplied by orthogonal matrices, :math:`y = Q x`.

    Args:
        matrix: Orthogonal matrices, shape ``[..., n, n]``.
        manifold: ``Sphere(n - 1)``, the default, or ``ProjectiveSpace(n - 1)``, or, for rotations
            of space, ``SO3()``, on which they act from the left.
        validate_args: Whether to check that the matrices are orthogonal, as for distributions.

    Raises:
        ValueError: If the matrices are not square or not orthogonal, or the manifold is no other
            than those.

    Example:
        >>> from pyro_manifolds.distributions.transforms import Rotation
        >>> Rotation.by_angle(torch.tensor(math.pi / 2))(torch.tensor([1.0, 0.0])).round()
        tensor([-0., 1.])
    """

    def __init__(
        self,
        matrix: Tensor,
        manifold: Manifold | None = None,
        *,
        cache_size: int = 0,
        validate_args: bool | None = None,
    ) -> None:
        n = matrix.shape[-1] if matrix.dim() >= 2 else 0
        if n < 2 or matrix.shape[-2] != n:
            raise ValueError(
                f"Rotation: expected matrix of shape [..., n, n], got {tuple(matrix.shape)}"
            )
        manifold = Sphere(n - 1) if manifold is None else manifold
        if manifold not in (Sphere(n - 1), ProjectiveSpace(n - 1)) + ((SO3(),) if n == 3 else ()):
            raise ValueError(
                f"Rotation: expected a manifold on which matrices of size {n} act, such as "
                f"Sphere({n - 1}), got {manifold}"
            )
        if _validates(validate_args):
            _check_orthogonal(matrix, manifold)
        super().__init__(manifold, cache_size)
        self.matrix = matrix

    @staticmethod
    def by_angle(angle: Tensor) -> Rotation:
        """Return rotations of the plane by angles, counterclockwise."""
        cos, sin = angle.cos(), angle.sin()
        matrix = torch.stack([cos, -sin, sin, cos], -1).unflatten(-1, (2, 2))
        return Rotation(matrix, validate_args=False)

    @property
    def batch_shape(self) -> Size:
        return self.matrix.shape[:-2]

    def _elements(self) -> tuple[Tensor, ...]:
        return (self.matrix,)

    def _act(self, matrix: Tensor, x: Tensor) -> Tensor:
        if self.manifold.ndim == 2:
            return matrix @ x
        return (matrix @ x.unsqueeze(-1)).squeeze(-1)

    def _call(self, x: Tensor) -> Tensor:
        return self.manifold.projx(self._act(self.matrix, x))

    def _inverse(self, y: Tensor) -> Tensor:
        return self.manifold.projx(self._act(self.matrix.mT, y))


def _check_orthogonal(matrix: Tensor, manifold: Manifold) -> None:
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    error = (matrix.mT @ matrix - identity).abs().max().item()
    if not error < 100 * torch.finfo(matrix.dtype).eps ** 0.75:
        raise ValueError(
            f"Rotation: expected orthogonal matrices, got an error of {error:.1e}; "
            "SO3().unembed returns the nearest rotation of space"
        )
    if manifold == SO3() and bool((torch.linalg.det(matrix) < 0).any()):
        raise ValueError("Rotation: expected rotations on SO3(), got a reflection")


class FlatIsometry(GroupAction):
    r"""Coordinates shifted, and perhaps reflected, on a flat manifold: :math:`y = s x + t`.

    Args:
        manifold: A circle, torus, cylinder, Klein bottle or Moebius band.
        shift: Shift of every coordinate, shape ``[..., *event_shape]``. On the Klein bottle the
            second is 0 or :math:`\pi`, and on the Moebius band and on cylinders of finite width
            zero: other shifts do not pass to the quotient.
        signs: Plus or minus one for every coordinate, of a shape that broadcasts.
        validate_args: Whether to check shifts and signs, as for distributions.

    Raises:
        ValueError: If it is no isometry of the manifold.

    Example:
        >>> from pyro_manifolds.distributions.transforms import FlatIsometry
        >>> FlatIsometry(Torus(2), torch.tensor([1.0, 3.0]))(torch.tensor([0.5, 1.0]))
        tensor([ 1.5000, -2.2832])
    """

    def __init__(
        self,
        manifold: Manifold,
        shift: Tensor,
        signs: Tensor | None = None,
        *,
        cache_size: int = 0,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(manifold, Circle | Torus | Cylinder | KleinBottle | MoebiusBand):
            raise ValueError(
                "FlatIsometry: expected a circle, torus, cylinder, Klein bottle or Moebius band, "
                f"got {manifold}"
            )
        manifold._assert_check_shape(shift.shape, "shift")
        signs = torch.ones_like(shift) if signs is None else signs
        if _validates(validate_args):
            _check_shift(manifold, shift)
            if not bool((signs.abs() == 1).all()):
                raise ValueError(f"FlatIsometry: expected signs to be +1 or -1, got {signs}")
        super().__init__(manifold, cache_size)
        self.shift, self.signs = shift, signs

    @property
    def batch_shape(self) -> Size:
        shape = torch.broadcast_shapes(self.shift.shape, self.signs.shape)
        return shape[: len(shape) - self.manifold.ndim]

    def _elements(self) -> tuple[Tensor, ...]:
        return (self.shift, self.signs)

    def _call(self, x: Tensor) -> Tensor:
        return self.manifold.projx(self.signs * x + self.shift)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.manifold.projx(self.signs * (y - self.shift))


def _check_shift(manifold: FlatManifold, shift: Tensor) -> None:
    if isinstance(manifold, KleinBottle):
        odd, allowed = shift[..., 1].sin(), "0 or pi"
    elif isinstance(manifold, MoebiusBand) or (
        isinstance(manifold, Cylinder) and manifold.is_compact
    ):
        odd, allowed = shift[..., 1], "0"
    else:
        return
    if not bool((odd.abs() < torch.finfo(shift.dtype).eps ** 0.75).all()):
        raise ValueError(
            f"FlatIsometry: expected the second entry of shift to be {allowed} on {manifold}, "
            f"got {shift[..., 1]}"
        )
