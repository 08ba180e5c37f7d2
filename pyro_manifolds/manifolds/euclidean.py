"""Euclidean space."""

import math

from torch import Size, Tensor

from pyro_manifolds.manifolds.flat import FlatManifold

__all__ = ["Euclidean"]


class Euclidean(FlatManifold):
    r"""Euclidean space :math:`\mathbb{R}^n`, for comparison with and products of the others.

    A point is a vector, event shape ``(dim,)``; the volume is infinite.

    Args:
        dim: Dimension, at least one.

    Raises:
        ValueError: If ``dim`` is not positive.

    Example:
        >>> Euclidean(2).dist(torch.zeros(2), torch.tensor([3.0, 4.0]))
        tensor(5.)
    """

    name = "Euclidean"
    ndim = 1

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"Euclidean: expected dim of at least 1, got {dim}")
        self.dim = self.embed_dim = dim
        self.event_shape = self.scale_shape = Size([dim])
        self.volume = math.inf
        self.lattice = (None,) * dim
        self.periods = (1.0,) * dim

    def _key(self) -> tuple[object, ...]:
        return (self.dim,)

    def project(self, x: Tensor) -> Tensor:
        return x

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return y - x

    def embed(self, y: Tensor) -> Tensor:
        return y

    def unembed(self, a: Tensor) -> Tensor:
        return a

    def log_repulsion(self, a: Tensor, power: float) -> Tensor:
        return a.new_zeros(a.shape[:-1])  # never singular

    def log_prob_unembed(self, y: Tensor) -> Tensor:
        """Standard normal: the map is the identity."""
        return -0.5 * (y.square() + math.log(2 * math.pi)).sum(-1)

    def preimage(self, y: Tensor) -> Tensor:
        return y
