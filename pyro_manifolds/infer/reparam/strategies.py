"""Choosing the sites to reparameterise."""

from __future__ import annotations

from typing import Any

from pyro.infer.reparam.strategies import Strategy
from torch.distributions import Independent

from pyro_manifolds.distributions.constraints import OnManifold
from pyro_manifolds.infer.reparam.manifold import ManifoldReparam
from pyro_manifolds.manifolds import Euclidean

__all__ = ["AutoManifoldReparam"]


class AutoManifoldReparam(Strategy):
    """Apply :class:`ManifoldReparam` to every latent site on a manifold, and to nothing else.

    Observed sites stay as they are, and sites on Euclidean space, which need no help. Like any
    strategy it is a configuration of ``poutine.reparam``, or a decorator, for one model.

    Args:
        repulsion: Passed on to :class:`ManifoldReparam`.

    Example:
        >>> from pyro_manifolds.infer.reparam import AutoManifoldReparam
        >>> @AutoManifoldReparam()
        ... def model():
        ...     z = pyro.sample("z", ManifoldUniform(Sphere(2)))
        ...     scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        ...     pyro.sample("x", dist.Normal(z, scale).to_event(1), obs=torch.ones(3))
        >>> sorted(poutine.trace(model).get_trace().stochastic_nodes)
        ['scale', 'z_noise']
    """

    def __init__(self, repulsion: float = 2.0) -> None:
        super().__init__()
        self.repulsion = ManifoldReparam(repulsion).repulsion

    def configure(self, msg: dict[str, Any]) -> ManifoldReparam | None:
        fn = msg["fn"]
        while isinstance(fn, Independent):
            fn = fn.base_dist
        support = getattr(fn, "support", None)
        curved = isinstance(support, OnManifold) and not isinstance(support.manifold, Euclidean)
        return ManifoldReparam(self.repulsion) if curved and not msg["is_observed"] else None
