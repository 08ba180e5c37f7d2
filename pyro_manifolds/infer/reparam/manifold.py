"""Moving a site from a manifold to the ambient space, for every algorithm of Pyro."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
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
    act on it, and the joint density stays exact: the law of :math:`y` is :math:`p` and evidences
    are what they were. The noise is real, so any guide and HMC serve, and no cut is in the way.
    The site must be continuous on a manifold, of any distribution: its support
    is :class:`~pyro_manifolds.distributions.constraints.OnManifold`, also under ``.to_event()``.

    The length of :math:`z` has no counterpart on the manifold. It costs normal guides up to half
    a nat where the posterior is concentrated (a guide with a density on the manifold,
    :class:`~pyro_manifolds.infer.autoguide.AutoWrappedNormal`, costs none), and the directions
    around the singular set of ``unembed`` lie close together: there the energy that HMC follows is
    as steep as the posterior is concentrated. NUTS meets divergences from standard deviations of
    about a tenth of a radian down. ``repulsion`` :math:`b` weights the noise by :math:`s(z)^b`,
    where :math:`s` vanishes on the singular set and is independent of :math:`y`; ``repulsion=4``
    is enough for deviations of a thirtieth. The law of :math:`y` is the same for each.

    References:
        | Explorations in Homeomorphic Variational Auto-Encoding (Falorsi et al., 2018), arXiv
          1807.04689

    Args:
        repulsion: Power of the distance to the singular set that weights the noise, at least zero.
            Zero suits diffuse posteriors.

    Raises:
        ValueError: If ``repulsion`` is negative.
        TypeError: If the site is not on a manifold.
        NotImplementedError: If the site is observed, or :math:`u` has no closed form on its
            manifold (lens spaces, Moebius bands of finite width).

    Example:
        >>> def model():
        ...     return pyro.sample("z", WrappedNormal(KleinBottle(), torch.ones(2), 0.5))
        >>> trace = poutine.trace(poutine.reparam(model, {"z": ManifoldReparam()})).get_trace()
        >>> trace.nodes["z_noise"]["value"].shape, trace.nodes["z"]["value"].shape
        (torch.Size([5]), torch.Size([2]))
    """

    def __init__(self, repulsion: float = 0.0) -> None:
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
        manifold = support.manifold
        like = _like(fn) if value is None else value
        shape = fn.batch_shape + (manifold.embed_dim,)
        noise = pyro.sample(
            f"{name}_noise",
            self._wrap(dist.Normal(like.new_zeros(shape), 1).to_event(1), self._noise_dim(fn, event_dim)),
            obs=None if value is None else manifold.preimage(value),
            infer={"is_observed": False},
        )
        if value is None:
            value = manifold.unembed(noise)
        ...
