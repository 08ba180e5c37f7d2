"""Giving filters a site for their point of the manifold."""

from __future__ import annotations

import pyro
from pyro.distributions import MaskedDistribution
from pyro.infer.reparam.reparam import Reparam, ReparamMessage, ReparamResult

from pyro_manifolds.distributions.manifold_filter import ManifoldFilter

__all__ = ["FilterReparam"]


_ADVICE = {MaskedDistribution: "; mask the site by poutine.mask instead"}


class FilterReparam(Reparam):
    r"""Write a prior on filters as a hierarchical model, with the point of the manifold as a site.

    A site ``name`` with a :class:`~pyro_manifolds.distributions.KleinFilter` or
    :class:`~pyro_manifolds.distributions.CircleFilter` becomes ``{name}_point`` on the manifold,
    with the density of the prior, and ``name`` given the point: the same joint distribution of
    data and filters, with the integral over the manifold left to inference.
    ``AutoWrappedNormal`` guides both sites; Pyro's own guides and NUTS do after
    ``AutoManifoldReparam``. Observed filters may be reparameterised too.
    A key of ``poutine.reparam`` that is the name of no site does nothing, as ever in Pyro.

    Raises:
        TypeError: If the site has another distribution.

    Example:
        >>> def model():
        ...     return pyro.sample("w", KleinFilter(3, 1.0, 0.3).expand([16]).to_event(1))
        >>> trace = poutine.trace(poutine.reparam(model, {"w": FilterReparam()})).get_trace()
        >>> {name: trace.nodes[name]["value"].shape for name in trace.stochastic_nodes}
        {'w_point': torch.Size([16, 2]), 'w': torch.Size([16, 3, 3])}
    """

    def apply(self, msg: ReparamMessage) -> ReparamResult:
        name = msg["name"]
        fn, event_dim = self._unwrap(msg["fn"])
        if not isinstance(fn, ManifoldFilter):
            raise TypeError(
                f"FilterReparam: expected KleinFilter or CircleFilter at site '{name}', "
                f"got {type(fn).__name__}{_ADVICE.get(type(fn), '')}"
            )
        outer = event_dim - fn.event_dim
        density = fn.density.expand(fn.batch_shape)
        points = pyro.sample(f"{name}_point", density.to_event(outer))
        return {
            "fn": fn.given(points).to_event(outer),
            "value": msg["value"],
            "is_observed": bool(msg["is_observed"]),
        }
