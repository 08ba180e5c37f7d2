"""Moving a complex site to its real and imaginary parts."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
from pyro.infer.reparam.reparam import Reparam, ReparamMessage, ReparamResult

from pyro_manifolds.distributions.real_view import is_complex, real_view
from pyro_manifolds.distributions.transforms import RealToComplex

__all__ = ["ComplexReparam"]

_PAIRS = RealToComplex()


class ComplexReparam(Reparam):
    """Move a complex latent site to its real and imaginary parts, the site ``{name}_ri``.

    The parts are the last dimension of that site, and the site itself becomes a function of it.
    Lengths are kept, so the joint density is the same; where the parts are independent, as those
    of a proper :class:`~pyro_manifolds.distributions.ComplexNormal`, ``{name}_ri`` is a ``Normal``
    of Pyro. Every algorithm of Pyro serves the real site, and ``MCMC.summary`` prints it. HMC,
    NUTS, :class:`~pyro_manifolds.infer.autoguide.AutoWrappedNormal` and guides written by hand
    also take the complex site as it is, and so do Pyro's guides under
    :func:`~pyro_manifolds.infer.real_deltas`.

    Observed sites are left as they are. A key of ``poutine.reparam`` that is the name of no site
    does nothing, as ever in Pyro.

    Raises:
        TypeError: If the support of the site is not the complex numbers, or arrays of them.

    Example:
        >>> from pyro_manifolds.distributions import ComplexNormal
        >>> from pyro_manifolds.infer.reparam import ComplexReparam
        >>> def model():
        ...     return pyro.sample("z", ComplexNormal(torch.zeros(3) + 1j, 1.0).to_event(1))
        >>> trace = poutine.trace(poutine.reparam(model, {"z": ComplexReparam()})).get_trace()
        >>> trace.nodes["z_ri"]["value"].shape, trace.nodes["z"]["value"].dtype
        (torch.Size([3, 2]), torch.complex64)
    """

    def apply(self, msg: ReparamMessage) -> ReparamResult:
        name, value = msg["name"], msg["value"]
        fn: Any = msg["fn"]
        if not is_complex(fn):
            raise TypeError(
                f"ComplexReparam: expected site '{name}' to have the complex numbers for support, "
                f"got {type(fn).__name__} on {fn.support}"
            )
        if msg["is_observed"]:
            return {"fn": fn, "value": value, "is_observed": True}
        given = None if value is None else _PAIRS.inv(value)
        parts = pyro.sample(f"{name}_ri", real_view(fn), obs=given, infer={"is_observed": False})
        if value is None:
            value = _PAIRS(parts)
        elif parts is not given:
            # Replayed parts outrank an initial value, which Pyro would take for lost.
            value._pyro_custom_init = False  # type: ignore[attr-defined]
            value = _PAIRS(parts)
        point = dist.Delta(value, event_dim=fn.event_dim).mask(False)
        return {"fn": point, "value": value, "is_observed": True}
