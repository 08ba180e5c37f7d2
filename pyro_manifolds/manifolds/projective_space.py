"""Real projective space."""

import math

import torch
from torch import Tensor

from pyro_manifolds.manifolds.spherical import SphericalQuotient, log_sphere_volume
from pyro_manifolds.ops.arcs import unit
from pyro_manifolds.ops.eigen import leading_eigenvector
from pyro_manifolds.ops.repulsion import log_eigenvalue_gaps_weight

__all__ = ["ProjectiveSpace"]


class ProjectiveSpace(SphericalQuotient):
    r"""Real projective space :math:`\mathbb{RP}^d = S^d / \pm 1`, the lines through the origin.

    A point is a unit vector up to its sign, event shape ``(dim + 1,)``; in the canonical one the
    first coordinate other than zero is positive. Tangent vectors change sign with the point.

    ``embed`` lists the upper triangle of :math:`x x^\top` row by row, off-diagonal entries times
    :math:`\sqrt2`, so that :math:`|e(x) - e(y)| = \sqrt2 \sin d(x, y)`. ``unembed`` is the leading
    eigenvector of that matrix, singular where the two largest eigenvalues meet.

    Args:
        dim: Intrinsic dimension, at least one.

    Raises:
        ValueError: If ``dim`` is not positive.

    Example:
        >>> plane = ProjectiveSpace(2)
        >>> plane.projx(torch.tensor([0.0, -3.0, 4.0]))
        tensor([-0.0000,  0.6000, -0.8000])
        >>> plane.embed(torch.tensor([0.0, 0.6, -0.8]))
        tensor([ 0.0000,  0.0000, -0.0000,  0.3600, -0.6788,  0.6400])
    """

    name = "ProjectiveSpace"
    num_sheets = 2
    periods = (math.pi,)

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.embed_dim = (dim + 1) * (dim + 2) // 2
        self.volume = math.exp(self.log_volume)

    @property
    def log_volume(self) -> float:
        return log_sphere_volume(self.dim) - math.log(2)

    def _key(self) -> tuple[object, ...]:
        return (self.dim,)

    def act(self, x: Tensor, sheet: Tensor) -> Tensor:
        return (1 - 2 * (sheet % 2)).unsqueeze(-1) * x

    def canonical_sheet(self, x: Tensor) -> Tensor:
        first = (x != 0).to(torch.uint8).argmax(-1, keepdim=True)
        return (x.detach().gather(-1, first).squeeze(-1) < 0).long()

    def nearest_sheet(self, x: Tensor, y: Tensor) -> Tensor:
        return ((x * y).sum(-1) < 0).long()

    def embed(self, y: Tensor) -> Tensor:
        rows, columns = torch.triu_indices(self.dim + 1, self.dim + 1, device=y.device)
        products = y[..., rows] * y[..., columns]
        return torch.where(rows == columns, products, math.sqrt(2) * products)

    def unembed(self, a: Tensor) -> Tensor:
        return self.project(leading_eigenvector(self._matrix(a)))

    def _matrix(self, a: Tensor) -> Tensor:
        """Return the symmetric matrix whose upper triangle is listed."""
        n = self.dim + 1
        rows, columns = torch.triu_indices(n, n, device=a.device)
        entry = torch.zeros(n, n, dtype=torch.long, device=a.device)
        places = torch.arange(self.embed_dim, device=a.device)
        entry = entry.index_put((rows, columns), places).index_put((columns, rows), places)
        off_diagonal = 1 - torch.eye(n, dtype=a.dtype, device=a.device)
        return a[..., entry] * (1 - (1 - math.sqrt(0.5)) * off_diagonal)

    def preimage(self, y: Tensor) -> Tensor:
        n = self.dim + 1
        # The reflection that takes the first axis to the line, by the sign without cancellation.
        first = (torch.arange(n, device=y.device) == 0).to(y.dtype)
        normal = unit(y + torch.where(y[..., :1] < 0, -first, first))
        eye = torch.eye(n, dtype=y.dtype, device=y.device)
        reflection = eye - 2 * normal.unsqueeze(-1) * normal.unsqueeze(-2)
        # Apart, the eigenvalues are about those of a normal matrix.
        values = math.sqrt(n) * torch.linspace(1, -1, n, dtype=y.dtype, device=y.device)
        matrix = (reflection * values) @ reflection
        rows, columns = torch.triu_indices(n, n, device=y.device)
        return matrix[..., rows, columns] * torch.where(rows == columns, 1, math.sqrt(2)).to(
            y.dtype
        )

    def log_repulsion(self, a: Tensor, power: float) -> Tensor:
        return log_eigenvalue_gaps_weight(self._matrix(a), power)

    def log_prob_unembed(self, y: Tensor) -> Tensor:
        """Uniform: rotations leave the Gaussian orthogonal ensemble as it is."""
        return self._log_prob_uniform(y)
