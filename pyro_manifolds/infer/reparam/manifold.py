"""Moving a site from a manifold to the ambient space, for every algorithm of Pyro."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.util import sum_rightmost
from pyro.infer.reparam.reparam import Reparam, ReparamMessage, ReparamResult
from torch import Tensor
from torch.distributions import Distribution

from pyro_manifolds.distributions.adoption import adopt, manifold_of

__all__ = ["ManifoldReparam"]


class ManifoldReparam(Reparam):
    r"""Reparameterise a latent site on a manifold by a normal vector of the ambient space.

    The site ``name`` becomes an auxiliary ``{name}_noise``, standard normal in
    :math:`\mathbb{R}^N`, and keeps its own name for the point :math:`y = \text{unembed}(z)`. With
    :math:`u` the density of that point, known on nearly every manifold
    (:meth:`Manifold.log_prob_unembed`, mostly uniform), the factor

    .. math:: \log p(y) - \log u(y)

    makes up for the law of the site. It is carried by the site itself, so plates, scales and masks
    act on it, and the joint density stays exact: the law of :math:`y` is :math:`p`, and evidences
    are what they were. The noise is real, so any guide and HMC serve, and no cut is in the way.
    Any continuous distribution will do whose support is that of a manifold
    (:class:`~pyro_manifolds.distributions.constraints.OnManifold`), also under ``.to_event()``,
    and so will Pyro's own on circles, tori and spheres: ``VonMises``, ``SineBivariateVonMises``,
    ``SineSkewed``, ``ProjectedNormal``, ``VonMises3D`` and mixtures of them. No draw of it is
    needed (though the initialisation of most algorithms of Pyro draws; ``VonMises3D``, which
    cannot, takes :class:`AutoManifoldReparam`).

    Where ``unembed`` is singular all directions meet, and the energy that HMC follows has no
    bounded slope. ``repulsion`` :math:`b` weights the noise by :math:`s(z)^b`, where :math:`s`
    vanishes there and is independent of :math:`y`, whose law is the same for each :math:`b`. The
    default keeps NUTS from diverging; posteriors narrower than a tenth of a radian may want 8.
    Across barriers of more than three nats between modes NUTS hardly moves, here as on a line;
    guides with several components (see below) are for such posteriors.

    Under variational guides the length of :math:`z`, which has no counterpart on the manifold,
    costs a few tenths of a nat: for ``AutoNormal`` and a von Mises law of concentration 0.5, 5
    and 50, 0.25, 0.04 and 0.19, and 0.01, 0.17 and 0.45 with ``repulsion=0``. A guide on the
    manifold itself, :class:`~pyro_manifolds.infer.autoguide.AutoWrappedNormal`, has no such cost.

    As for other reparameterisations with a factor, draws from the reparameterised model without
    a guide or posterior samples are not draws from the prior.

    References:
        | Explorations in Homeomorphic Variational Auto-Encoding (Falorsi et al., 2018), arXiv
          1807.04689

    Args:
        repulsion: Power of the distance to the singular set that weights the noise, at least zero.

    Raises:
        ValueError: If ``repulsion`` is negative.
        TypeError: If the site is not on a manifold.
        NotImplementedError: If the site is observed, or :math:`u` has no closed form on its
            manifold (lens spaces, Moebius bands of finite width).

    Example:
        >>> from pyro_manifolds.infer.reparam import ManifoldReparam
        >>> def model():
        ...     return pyro.sample("z", WrappedNormal(KleinBottle(), torch.ones(2), 0.5))
        >>> trace = poutine.trace(poutine.reparam(model, {"z": ManifoldReparam()})).get_trace()
        >>> trace.nodes["z_noise"]["value"].shape, trace.nodes["z"]["value"].shape
        (torch.Size([5]), torch.Size([2]))
    """

    def __init__(self, repulsion: float = 2.0) -> None:
        if not repulsion >= 0:
            raise ValueError(f"ManifoldReparam: expected repulsion >= 0, got {repulsion}")
        self.repulsion = float(repulsion)

    def apply(self, msg: ReparamMessage) -> ReparamResult:
        name, value = msg["name"], msg["value"]
        if msg["is_observed"]:
            raise NotImplementedError(
                f"ManifoldReparam: site '{name}' is observed; leave it out of the reparam config"
            )
        given: Any = msg["fn"]
        fn = adopt(given)
        manifold = None if fn is None else manifold_of(fn)
        if fn is None or manifold is None or _is_masked(fn):
            raise TypeError(
                f"ManifoldReparam: site '{name}' is {type(given).__name__}, expected "
                "a distribution with the support of a manifold; mask with poutine.mask"
            )
        outer = fn.event_dim - manifold.ndim  # of events that consist of several points
        shape = fn.batch_shape + fn.event_shape[:outer] + (manifold.embed_dim,)
        zeros = (_like(fn) if value is None else value).new_zeros(shape)
        given = None if value is None else manifold.preimage(value)
        noise = pyro.sample(
            f"{name}_noise",
            dist.Normal(zeros, 1).to_event(1 + outer),
            obs=given,
            infer={"is_observed": False},
        )
        if value is None:
            value = manifold.unembed(noise)
        elif noise is not given:
            # Replayed noise outranks an initial value, which Pyro would take for lost.
            value._pyro_custom_init = False  # type: ignore[attr-defined]
            value = manifold.unembed(noise)
        log_density = 0.0
        if poutine.get_mask() is not False:
            log_weight = -manifold.log_prob_unembed(value)
            if self.repulsion:
                log_weight = log_weight + manifold.log_repulsion(noise, self.repulsion)
            log_density = fn.log_prob(value) + sum_rightmost(log_weight, outer)
        point = dist.Delta(value, log_density=log_density, event_dim=fn.event_dim)
        return {"fn": point, "value": value, "is_observed": True}


def _is_masked(fn: Distribution) -> bool:
    while isinstance(fn, torch.distributions.Independent):
        fn = fn.base_dist
    return isinstance(fn, dist.MaskedDistribution)


def _like(fn: Distribution) -> Tensor:
    """Return a tensor with the dtype and on the device of the draws."""
    found = _parameter(fn)
    if found is not None:
        return found
    with torch.no_grad():
        return fn.sample()


def _parameter(fn: Distribution) -> Tensor | None:
    """Return any parameter of a distribution or of one that it is made of."""
    for part in vars(fn).values():
        found = _parameter(part) if isinstance(part, Distribution) else part
        if isinstance(found, Tensor) and found.is_floating_point():
            return found
    return None
