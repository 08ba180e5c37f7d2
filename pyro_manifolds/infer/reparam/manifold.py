"""Moving a site from a manifold to the ambient space, for every algorithm of Pyro."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.util import sum_rightmost
from pyro.infer.reparam.reparam import Reparam, ReparamMessage, ReparamResult
from torch import Tensor
from torch.distributions import Distribution

from pyro_manifolds.distributions.constraints import OnManifold

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
    (:class:`~pyro_manifolds.distributions.constraints.OnManifold`), also under ``.to_event()``.

    Where ``unembed`` is singular all directions meet, and the energy that HMC follows has no
    bounded slope. ``repulsion`` :math:`b` weights the noise by :math:`s(z)^b`, where :math:`s`
    vanishes there and is independent of :math:`y`, whose law is the same for each :math:`b`. The
    default keeps NUTS from diverging; posteriors narrower than a tenth of a radian may want 8.
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
        fn, event_dim = self._unwrap(msg["fn"])
        support = getattr(fn, "support", None)
        if not isinstance(support, OnManifold) or isinstance(fn, dist.MaskedDistribution):
            raise TypeError(
                f"ManifoldReparam: site '{name}' is {type(fn).__name__}, expected a distribution "
                "with the support of a manifold; mask with poutine.mask"
            )
        manifold, outer = support.manifold, event_dim - fn.event_dim
        like = _like(fn) if value is None else value
        zeros = like.new_zeros(fn.batch_shape + (manifold.embed_dim,))
        noise = pyro.sample(
            f"{name}_noise",
            dist.Normal(zeros, 1).to_event(1 + outer),
            obs=None if value is None else manifold.preimage(value),
            infer={"is_observed": False},
        )
        if value is None:
            value = manifold.unembed(noise)
        log_density = 0.0
        if poutine.get_mask() is not False:
            log_density = fn.log_prob(value) - manifold.log_prob_unembed(value)
            if self.repulsion:
                log_density = log_density + manifold.log_repulsion(noise, self.repulsion)
            log_density = sum_rightmost(log_density, outer)
        point = dist.Delta(value, log_density=log_density, event_dim=event_dim)
        return {"fn": point, "value": value, "is_observed": True}


def _like(fn: Distribution) -> Tensor:
    """Return a tensor with the dtype and on the device of the draws."""
    for name in fn.arg_constraints:
        parameter = getattr(fn, name, None)
        if isinstance(parameter, Tensor):
            return parameter
    with torch.no_grad():
        return fn.sample()
