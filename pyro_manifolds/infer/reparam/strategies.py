"""Choosing the sites to reparameterise."""

from __future__ import annotations

import math
from typing import Any

from pyro.distributions.constraints import Constraint
from pyro.infer.reparam.reparam import Reparam
from pyro.infer.reparam.strategies import Strategy
from torch.distributions import Distribution, Independent, biject_to

from pyro_manifolds.distributions import (
    CoveringPushforward,
    EmbeddingPushforward,
    ManifoldUniform,
)
from pyro_manifolds.distributions.adoption import adopt, manifold_of
from pyro_manifolds.distributions.real_view import is_complex
from pyro_manifolds.infer.reparam.complex import ComplexReparam
from pyro_manifolds.infer.reparam.covering import CoveringReparam
from pyro_manifolds.infer.reparam.embedding import EmbeddingReparam
from pyro_manifolds.infer.reparam.manifold import ManifoldReparam
from pyro_manifolds.manifolds import Manifold

__all__ = ["AutoManifoldReparam"]


class AutoManifoldReparam(Strategy):
    """Apply :class:`ManifoldReparam` to every latent site on a manifold, and leave ordinary ones.

    Where that has no density, on lens spaces and on Moebius bands of finite width, the site is
    moved to its cover first, by :class:`CoveringReparam`; from the image of a manifold under an
    embedding it is moved to the manifold, by :class:`EmbeddingReparam`. Complex sites are moved to
    their real and imaginary parts, by :class:`ComplexReparam`.
    Sites of Pyro's own distributions on circles, tori and spheres (``VonMises``, whose support
    Pyro declares to be the real line, and others) are among them. Observed sites stay as they are,
    and sites whose support ``biject_to`` reaches (Euclidean and hyperbolic space). Like any
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

    def __call__(self, msg_or_fn: Any) -> Any:
        """Choose for one site, or decorate a model."""
        choice = super().__call__(msg_or_fn)
        if isinstance(msg_or_fn, dict) and choice is not None:
            # What initialises the site draws from it, which not every distribution of Pyro can.
            msg_or_fn["fn"] = adopt(msg_or_fn["fn"]) or msg_or_fn["fn"]
        return choice

    def configure(self, msg: dict[str, Any]) -> Reparam | None:
        if not msg["is_observed"] and is_complex(msg["fn"]):
            return ComplexReparam()
        if not msg["is_observed"] and _is_image_of_manifold(msg["fn"]):
            return EmbeddingReparam()  # what it leads to comes here in its turn
        fn: Any = adopt(msg["fn"])
        if fn is None or msg["is_observed"] or _has_bijection(fn.support):
            return None
        if not _has_density(manifold_of(fn)) and _has_cover(fn):
            return CoveringReparam()  # what it leads to comes here in its turn
        return ManifoldReparam(self.repulsion)


def _is_image_of_manifold(fn: Distribution) -> bool:
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return isinstance(fn, EmbeddingPushforward) and not _has_bijection(fn.support)


def _has_bijection(support: Constraint) -> bool:
    try:
        biject_to(support)
    except NotImplementedError:
        return False
    return True


def _has_density(manifold: Manifold | None) -> bool:
    """Tell whether the law of ``unembed`` of noise is known, as ManifoldReparam needs."""
    assert manifold is not None
    try:
        manifold.log_prob_unembed(manifold.origin(manifold.event_shape))
    except NotImplementedError:
        return False
    return True


def _has_cover(fn: Any) -> bool:
    """Tell whether the distribution has a law on its cover."""
    while isinstance(fn, Independent):
        fn = fn.base_dist
    finite = isinstance(fn, ManifoldUniform) and fn.manifold.covering.num_sheets < math.inf
    return finite or isinstance(fn, CoveringPushforward)
