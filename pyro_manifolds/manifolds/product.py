"""Products of manifolds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Size, Tensor

from pyro_manifolds.manifolds.geodesic import GeodesicManifold
from pyro_manifolds.manifolds.manifold import Manifold
from pyro_manifolds.ops.events import join_events, split_events

__all__ = ["Product"]


class Product(GeodesicManifold):
    r"""Riemannian product :math:`M_1 \times \dots \times M_n`.

    A point is one vector, event shape ``(total,)``: the points of the components, flattened, one
    after the other; :meth:`split` and :meth:`join` go between the two. Squared distances add up,
    volumes multiply, ``embed`` and ``unembed`` act on each component.

    Args:
        manifolds: The components, at least one.

    Raises:
        ValueError: If there are none.
        TypeError: If one of them is not a :class:`Manifold`.

    Example:
        >>> from pyro_manifolds.manifolds import Circle, Euclidean
        >>> cylinder = Product(Circle(), Euclidean(1))
        >>> cylinder.dist(torch.tensor([3.0, 0.0]), torch.tensor([-3.0, 1.0]))
        tensor(1.0393)
        >>> cylinder.split(torch.tensor([3.0, 0.0]))
        [tensor(3.), tensor([0.])]
    """

    name = "Product"
    ndim = 1

    def __init__(self, *manifolds: Manifold) -> None:
        super().__init__()
        if not manifolds:
            raise ValueError("Product: expected at least one manifold, got none")
        for manifold in manifolds:
            if not isinstance(manifold, Manifold):
                raise TypeError(
                    f"Product: expected manifolds of pyro_manifolds, got {type(manifold).__name__}"
                )
        self.manifolds = manifolds
        self._event_shapes = [m.event_shape for m in manifolds]
        self.dim = sum(m.dim for m in manifolds)
        self.event_shape = Size([sum(shape.numel() for shape in self._event_shapes)])
        self.embed_dim = sum(m.embed_dim for m in manifolds)
        self.scale_shape = Size([sum(m.scale_shape.numel() for m in manifolds)])
        self.periods = tuple(itertools.chain(*(m.periods for m in manifolds)))

    @property
    def volume(self) -> float:  # type: ignore[override]
        """Product of the volumes of the components."""
        return math.prod(m.volume for m in self.manifolds)

    @property
    def log_volume(self) -> float:
        return sum(m.log_volume for m in self.manifolds)

    def _key(self) -> tuple[object, ...]:
        return self.manifolds

    def split(self, x: Tensor) -> list[Tensor]:
        """Split points into those of the components, each of its own event shape."""
        return split_events(x, self._event_shapes)

    def join(self, points: Sequence[Tensor]) -> Tensor:
        """Join points of the components, whose batch shapes broadcast: the inverse of split."""
        return join_events(points, self._event_shapes)

    def _each(self, method: str, *arguments: Tensor) -> list[Tensor]:
        """Call a method of every component on its parts of the arguments."""
        parts = zip(*map(self.split, arguments), strict=True)
        return [getattr(m, method)(*part) for m, part in zip(self.manifolds, parts, strict=True)]

    def embed(self, y: Tensor) -> Tensor:
        parts = self._each("embed", y)
        batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
        return torch.cat([part.expand(batch + part.shape[-1:]) for part in parts], -1)

    def unembed(self, a: Tensor) -> Tensor:
        parts = a.split([m.embed_dim for m in self.manifolds], -1)
        return self.join([m.unembed(part) for m, part in zip(self.manifolds, parts, strict=True)])

    def log_repulsion(self, a: Tensor, power: float) -> Tensor:
        parts = a.split([m.embed_dim for m in self.manifolds], -1)
        pairs = zip(self.manifolds, parts, strict=True)
        return torch.stack([m.log_repulsion(part, power) for m, part in pairs]).sum(0)

    def log_prob_unembed(self, y: Tensor) -> Tensor:
        """Sum over the components: their parts of a normal vector are independent."""
        return torch.stack(self._each("log_prob_unembed", y)).sum(0)

    def preimage(self, y: Tensor) -> Tensor:
        return torch.cat(self._each("preimage", y), -1)

    def contains(self, x: Tensor) -> Tensor:
        return torch.stack(self._each("contains", x)).all(0)

    def projx(self, x: Tensor) -> Tensor:
        return self.join(self._each("projx", x))

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return self.join(self._each("proju", x, u))

    def egrad2rgrad(self, x: Tensor, u: Tensor) -> Tensor:
        return self.join(self._each("egrad2rgrad", x, u))

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return self.join(self._each("expmap", x, u))

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return self.join(self._each("logmap", x, y))

    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return self.join(self._each("transp", x, y, v))

    def transp_follow_expmap(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.join(self._each("transp_follow_expmap", x, u, v))

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        return self._root_sum_square(self._each("dist", x, y), keepdim)

    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        return self._root_sum_square(self._each("norm", x, u), keepdim)

    @staticmethod
    def _root_sum_square(parts: list[Tensor], keepdim: bool) -> Tensor:
        lengths = torch.stack(torch.broadcast_tensors(*parts), -1)
        return torch.linalg.vector_norm(lengths, dim=-1, keepdim=keepdim)

    def inner(
        self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False
    ) -> Tensor:
        total = sum(self._each("inner", x, u, u if v is None else v), start=x.new_zeros(()))
        return total.unsqueeze(-1) if keepdim else total

    def component_inner(self, x: Tensor, u: Tensor, v: Tensor | None = None) -> Tensor:
        """Return the inner products of the components, each repeated over its coordinates."""
        inners = self._each("component_inner", x, u, u if v is None else v)
        points = self.split(x.expand(torch.broadcast_shapes(x.shape, u.shape)))
        return self.join([i.expand(p.shape) for i, p in zip(inners, points, strict=True)])

    def _check_vector_on_tangent(
        self, x: Tensor, u: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5
    ) -> tuple[bool, str | None]:
        for m, point, vector in zip(self.manifolds, self.split(x), self.split(u), strict=True):
            ok, reason = m._check_vector_on_tangent(point, vector, atol=atol, rtol=rtol)
            if not ok:
                return ok, reason
        return True, None

    def _sample_uniform(
        self, batch: Size, dtype: torch.dtype | None, device: torch.device | None
    ) -> Tensor:
        return self.join([m._sample_uniform(batch, dtype, device) for m in self.manifolds])
