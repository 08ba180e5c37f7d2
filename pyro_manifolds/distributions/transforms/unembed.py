"""The way from the ambient space onto a manifold."""

from pyro.distributions import constraints
from pyro.distributions.constraints import Constraint
from torch import Size, Tensor
from torch.distributions import Transform

from pyro_manifolds.manifolds import Manifold

__all__ = ["Unembed"]


class Unembed(Transform):
    r"""Map of the ambient space :math:`\mathbb{R}^N` onto a manifold, right inverse ``embed``.

    Not injective: it owes ``t(t.inv(y)) == y`` as points of the manifold and has no
    log-determinant. This is what ``transform_to(manifold.support)`` returns.

    Args:
        manifold: The manifold.

    Example:
        >>> Unembed(Circle())(torch.tensor([0.0, 3.0]))
        tensor(1.5708)
    """

    domain = constraints.real_vector
    bijective = False

    def __init__(self, manifold: Manifold, cache_size: int = 0) -> None:
        super().__init__(cache_size=cache_size)
        self.manifold = manifold

    @property
    def codomain(self) -> Constraint:  # type: ignore[override]
        return self.manifold.support

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unembed) and other.manifold == self.manifold

    def __hash__(self) -> int:
        return hash((Unembed, self.manifold))

    def with_cache(self, cache_size: int = 1) -> "Unembed":
        return Unembed(self.manifold, cache_size)

    def _call(self, x: Tensor) -> Tensor:
        return self.manifold.unembed(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.manifold.embed(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError(f"Unembed: no density passes onto {self.manifold} this way")

    def forward_shape(self, shape: Size) -> Size:
        return Size(shape[:-1]) + self.manifold.event_shape

    def inverse_shape(self, shape: Size) -> Size:
        return Size(shape[: len(shape) - self.manifold.ndim]) + Size([self.manifold.embed_dim])
