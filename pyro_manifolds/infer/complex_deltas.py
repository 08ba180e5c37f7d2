"""Making the guides of Pyro serve complex sites."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import pyro.distributions as dist
from pyro.distributions.util import sum_rightmost
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

__all__ = ["RealDeltas", "real_deltas"]

Guide = TypeVar("Guide", bound=Callable[..., Any])


class _RealDelta(dist.Delta):
    """Point mass with a real log-density, also at a complex value."""

    def log_prob(self, x: Tensor) -> Tensor:
        log_hit = (x == self.v).to(self.log_density.dtype).log()
        return sum_rightmost(log_hit, self.event_dim) + self.log_density


class RealDeltas(Messenger):
    """Give point masses at complex values a real log-density.

    The guides of Pyro reach the support of a site by a point mass, ``Delta``, whose log-density
    Pyro makes complex where the value is, and of a complex loss nothing can be differentiated.
    Within this context such point masses are replaced; nothing else changes.
    :func:`real_deltas` binds the context to a guide.

    Example:
        >>> from pyro_manifolds.infer import RealDeltas
        >>> point = dist.Delta(torch.tensor(1 + 2j))
        >>> point.log_prob(torch.tensor(1 + 2j))
        tensor(0.+0.j)
        >>> with RealDeltas(), poutine.trace() as tracer:
        ...     z = pyro.sample("z", point)
        >>> tracer.trace.nodes["z"]["fn"].log_prob(z)
        tensor(0.)
    """

    def _pyro_sample(self, msg: Any) -> None:
        fn = msg["fn"]
        if type(fn) is dist.Delta and fn.v.is_complex():
            msg["fn"] = _RealDelta(fn.v, fn.log_density.real, fn.event_dim)


def real_deltas(guide: Guide) -> Guide:
    """Make a guide of Pyro serve models with complex latent sites.

    Each call of the guide runs in the context of :class:`RealDeltas`. A guide that is a module
    is changed in place and returned, with its class, parameters and methods as they were; around
    any other function the context is wrapped. A guide made of another one, as by
    ``laplace_approximation()``, is a new guide.

    Args:
        guide: Any guide.

    Example:
        >>> from pyro.infer.autoguide import AutoNormal
        >>> from pyro_manifolds.distributions import ComplexNormal
        >>> from pyro_manifolds.infer import real_deltas
        >>> def model():
        ...     z = pyro.sample("z", ComplexNormal(0.0, 1.0))
        ...     pyro.sample("x", ComplexNormal(z, 1.0), obs=torch.tensor(2j))
        >>> guide = real_deltas(AutoNormal(model))
        >>> optim, elbo = pyro.optim.Adam({"lr": 0.1}), pyro.infer.Trace_ELBO()
        >>> svi = pyro.infer.SVI(model, guide, optim, elbo)
        >>> losses = [svi.step() for _ in range(200)]
        >>> abs(guide.median()["z"] - 1j) < 0.2
        tensor(True)
    """
    if not isinstance(guide, nn.Module):
        return RealDeltas()(guide)  # type: ignore[return-value]
    guide.forward = partial(_within, guide.forward)
    return guide


def _within(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with RealDeltas():
        return function(*args, **kwargs)
