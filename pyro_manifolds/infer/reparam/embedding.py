"""Reparameterisation of a site on the image of an embedding by a point of its domain."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
from pyro.infer.reparam.reparam import Reparam, ReparamMessage, ReparamResult

from pyro_manifolds.distributions import EmbeddingPushforward

__all__ = ["EmbeddingReparam"]


class EmbeddingReparam(Reparam):
    """Move a latent site to the domain of its embedding, as the site ``{name}_base``.

    The site itself becomes a function of it, and the volume element drops out. Other than Pyro's
    ``TransformReparam`` it follows when a point of the domain is replayed under a guide that
    gives initial values, as ``AutoLaplaceApproximation`` does.

    Raises:
        TypeError: If the site is no ``EmbeddingPushforward``.
        NotImplementedError: If it is observed.

    Example:
        >>> from pyro_manifolds.distributions import EmbeddingPushforward
        >>> from pyro_manifolds.distributions.transforms import ManifoldEmbedding
        >>> from pyro_manifolds.infer.reparam import EmbeddingReparam
        >>> klein = KleinBottle()
        >>> def model():
        ...     law = EmbeddingPushforward(ManifoldUniform(klein), ManifoldEmbedding(klein))
        ...     return pyro.sample("z", law)
        >>> trace = poutine.trace(poutine.reparam(model, {"z": EmbeddingReparam()})).get_trace()
        >>> trace.nodes["z_base"]["value"].shape, trace.nodes["z"]["value"].shape
        (torch.Size([2]), torch.Size([5]))
    """

    def apply(self, msg: ReparamMessage) -> ReparamResult:
        name, value = msg["name"], msg["value"]
        fn, event_dim = self._unwrap(msg["fn"])
        if not isinstance(fn, EmbeddingPushforward):
            raise TypeError(
                f"EmbeddingReparam: expected site '{name}' to be an EmbeddingPushforward, got "
                f"{type(fn).__name__}"
            )
        if msg["is_observed"]:
            raise NotImplementedError(
                f"EmbeddingReparam: site '{name}' is observed; leave it out of the reparam config"
            )
        given = None if value is None else fn.embedding.inv(value)
        outer = event_dim - fn.event_dim  # of events that consist of several points
        base = pyro.sample(
            f"{name}_base",
            self._wrap(fn.base_dist, len(fn.base_dist.event_shape) + outer),
            obs=given,
            infer={"is_observed": False},
        )
        if value is None:
            value = fn.embedding(base)
        elif base is not given:
            # A replayed point outranks an initial value, which Pyro would take for lost.
            value._pyro_custom_init = False  # type: ignore[attr-defined]
            value = fn.embedding(base)
        point = dist.Delta(value, event_dim=event_dim).mask(False)
        return {"fn": point, "value": value, "is_observed": True}
