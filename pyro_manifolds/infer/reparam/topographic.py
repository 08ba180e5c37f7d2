"""Giving the auxiliary variables of topographic latents a site."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import MaskedDistribution
from pyro.infer.reparam.reparam import Reparam, ReparamMessage, ReparamResult

from pyro_manifolds.distributions.topographic_student_t import TopographicStudentT

__all__ = ["TopographicReparam"]

_ADVICE = {MaskedDistribution: "; mask the site by poutine.mask instead"}
_AUXILIARIES = ("normal", "halfnormal")


class TopographicReparam(Reparam):
    r"""Write a topographic latent as normal given its auxiliary variables, with those as a site.

    A site ``name`` with a :class:`~pyro_manifolds.distributions.TopographicStudentT` becomes
    ``{name}_u``, standard normal variables of the ``noise_shape`` of the neighbourhood, and
    ``name``, independent normal variables of location ``loc * s`` and scale ``s``, where
    :math:`s = \sigma / \sqrt{W u^2}`. It is the same joint distribution of data and latent for
    every neighbourhood, and each density in it is exact.

    Pyro's ``LocScaleReparam(0.0)`` on the same site, applied afterwards, turns the latent into a
    function of two standard normal sites, u and ``{name}_decentered``. This is the better
    parameterisation where data say little of the latent. Observed sites may be reparameterised
    too.

    Args:
        auxiliary: "normal", or "halfnormal" for the moduli. The law of the latent is the same. A
            normal guide fits the former easily; it ignores that u and -u mean the same, at a cost
            of at most log 2 for each of them.

    Raises:
        TypeError: If the site has another distribution.
        ValueError: If ``auxiliary`` is neither.

    Example:
        >>> from pyro.infer.reparam import LocScaleReparam
        >>> from pyro_manifolds.distributions import Ring, TopographicStudentT
        >>> from pyro_manifolds.infer.reparam import TopographicReparam
        >>> def model():
        ...     return pyro.sample("t", TopographicStudentT(Ring(6, 5), loc=10.0))
        >>> centred = poutine.reparam(model, {"t": TopographicReparam()})
        >>> list(poutine.trace(centred).get_trace().stochastic_nodes)
        ['t_u', 't']
        >>> whitened = poutine.reparam(centred, {"t": LocScaleReparam(0.0)})
        >>> list(poutine.trace(whitened).get_trace().stochastic_nodes)
        ['t_u', 't_decentered']
    """

    def __init__(self, auxiliary: str = "normal") -> None:
        if auxiliary not in _AUXILIARIES:
            raise ValueError(
                f"TopographicReparam: expected auxiliary among {', '.join(_AUXILIARIES)}, got "
                f"{auxiliary!r}"
            )
        self.auxiliary = auxiliary

    def apply(self, msg: ReparamMessage) -> ReparamResult:
        name = msg["name"]
        fn, event_dim = self._unwrap(msg["fn"])
        if not isinstance(fn, TopographicStudentT):
            raise TypeError(
                f"TopographicReparam: expected TopographicStudentT at site '{name}', got "
                f"{type(fn).__name__}{_ADVICE.get(type(fn), '')}"
            )
        outer = event_dim - fn.event_dim
        shape = fn.batch_shape + fn.neighborhood.noise_shape
        zeros = torch.zeros((), dtype=fn.loc.dtype, device=fn.loc.device).expand(shape)
        law = dist.Normal(zeros, 1.0) if self.auxiliary == "normal" else dist.HalfNormal(zeros + 1)
        u = pyro.sample(f"{name}_u", law.to_event(event_dim))
        return {
            "fn": fn.given(u).to_event(outer),
            "value": msg["value"],
            "is_observed": bool(msg["is_observed"]),
        }
