"""Moving a site from a manifold to its cover."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
from pyro.infer.reparam.reparam import Reparam, ReparamMessage, ReparamResult
from torch.distributions import Distribution

from pyro_manifolds.distributions import CoveringPushforward, ManifoldUniform, WrappedNormal
from pyro_manifolds.distributions.transforms import Covering, FiniteCovering

__all__ = ["CoveringReparam"]


class CoveringReparam(Reparam):
    r"""Reparameterise a site on a manifold by its cover, where divergences have closed forms.

    The site ``name`` becomes ``{name}_cover``, distributed by the base on the cover, and a
    deterministic ``name``, its projection. Applied to model and guide alike, it replaces the
    divergence on the manifold by the one on the cover, an upper bound: the ELBO of
    ``TraceMeanField_ELBO``, which has it in closed form, is a valid but looser bound than that of
    ``Trace_ELBO`` without the reparameterisation::

        reparam = CoveringReparam()
        svi = SVI(
            poutine.reparam(model, reparam),
            poutine.reparam(guide, reparam),
            optim,
            TraceMeanField_ELBO(),
        )

    An instance is a configuration of ``poutine.reparam`` by itself, for every latent site on
    a manifold; it can also stand in a dictionary, for chosen sites of a model. (In a guide, the
    former also tells Pyro that the projection has no counterpart in the model.)

    By default the cover is the one of the distribution. A uniform distribution has no law on
    an infinite cover, so there, and wherever the bound shall be at most :math:`\log` of the number
    of sheets loose, pass a finite one: ``CoveringReparam(KleinBottle().orientation_covering)``.

    References:
        | Reparameterization through Coverings and Topological Weight Priors (Beketov and Snopov,
          2026), arXiv 2604.23804

    Args:
        covering: Covering with finitely many sheets to use in place of the distribution's own.

    Raises:
        TypeError: If ``covering`` is not finite, or a site is not pushed through a covering.
        ValueError: If a site lives on another manifold than ``covering``.
        NotImplementedError: If a site is observed.

    Example:
        >>> def model():
        ...     return pyro.sample("z", WrappedNormal(Circle(), torch.tensor(3.0), 0.5))
        >>> trace = poutine.trace(poutine.reparam(model, CoveringReparam())).get_trace()
        >>> trace.nodes["z_cover"]["fn"]
        Normal(loc: 3.0, scale: 0.5)
    """

    def __init__(self, covering: FiniteCovering | None = None) -> None:
        if covering is not None and not isinstance(covering, FiniteCovering):
            raise TypeError(
                f"CoveringReparam: expected a covering with finitely many sheets, got {covering}"
            )
        self.covering = covering

    def __call__(self, msg: Any) -> CoveringReparam | None:  # type: ignore[override]
        """Choose the sites to reparameterise, as a configuration of ``poutine.reparam``."""
        fn, _ = self._unwrap(msg["fn"])
        if msg["is_observed"] or not isinstance(fn, CoveringPushforward | ManifoldUniform):
            return None
        if self.covering is not None and self.covering.manifold != fn.manifold:
            return None
        msg["infer"]["is_auxiliary"] = True
        return self

    def apply(self, msg: ReparamMessage) -> ReparamResult:
        name, value = msg["name"], msg["value"]
        if msg["is_observed"]:
            raise NotImplementedError(
                f"CoveringReparam: site '{name}' is observed; leave it out of the reparam config"
            )
        fn, event_dim = self._unwrap(msg["fn"])
        base, covering = self._on_cover(name, fn)
        outer = event_dim - fn.event_dim
        given = None if value is None else covering.inv(value)
        lift = pyro.sample(
            f"{name}_cover",
            base.to_event(outer) if outer else base,
            obs=given,
            infer={"is_observed": False},
        )
        if value is None:
            value = covering(lift)
        elif lift is not given:
            # A replayed lift outranks an initial value, which Pyro would take for lost.
            value._pyro_custom_init = False  # type: ignore[attr-defined]
            value = covering(lift)
        return {
            "fn": dist.Delta(value, event_dim=event_dim).mask(False),
            "value": value,
            "is_observed": True,
        }

    def _on_cover(self, name: str, fn: Distribution) -> tuple[Any, Covering]:
        if not isinstance(fn, CoveringPushforward | ManifoldUniform):
            raise TypeError(
                f"CoveringReparam: site '{name}' is {type(fn).__name__}, expected "
                "CoveringPushforward, WrappedNormal or ManifoldUniform; mask with poutine.mask"
            )
        covering = self.covering or fn.manifold.covering
        if covering.manifold != fn.manifold:
            raise ValueError(
                f"CoveringReparam: site '{name}' lives on {fn.manifold}, got {covering}"
            )
        if isinstance(fn, CoveringPushforward) and self.covering in (None, fn.covering):
            return fn.base_dist, fn.covering
        if not isinstance(covering, FiniteCovering):
            raise TypeError(
                f"CoveringReparam: site '{name}' is uniform, which has no law on the infinite "
                f"cover of {fn.manifold}; pass a covering with finitely many sheets"
            )
        if isinstance(fn, ManifoldUniform):
            base = ManifoldUniform(covering.cover, dtype=fn.dtype, device=fn.device)
            return base.expand(fn.batch_shape), covering
        if isinstance(fn, WrappedNormal):
            return WrappedNormal(covering.cover, fn.loc, fn.scale), covering
        raise TypeError(f"CoveringReparam: site '{name}' has a base that {covering} does not fit")
