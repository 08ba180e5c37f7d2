"""Guides of nets whose filters have deep priors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor

from pyro_manifolds.distributions import WrappedNormal
from pyro_manifolds.nn.deep_filter_prior import DeepFilterPrior

__all__ = ["DeepPriorGuide"]


class DeepPriorGuide(PyroModule):
    r"""Any guide for the weights of a net, with the points of their filters drawn from encoders.

    .. math:: q(w, z) = q(w) \prod_j r(z_j \mid w_j)

    for a model in which each filter :math:`w_j` is decoded from a point :math:`z_j`, by
    ``DeepFilterPrior.hierarchical``, outside of plates. The ELBO is a lower bound of the
    log-evidence. It is below that of the same :math:`q(w)` with the marginal prior by the mean
    divergence of the encoder from the posterior of the points. The encoders stay as they are:
    neither parameters of this guide nor part of its ``state_dict``.

    Args:
        model: Pyro model, such as a :class:`~pyro_manifolds.nn.bayesian.BayesianModule`.
        make_guide: Maps a model to a guide that returns a dictionary of what it sampled: a class
            of Pyro's automatic guides, or a ``functools.partial`` of one with its options.
        priors: The priors, by the names of the sites of the weights. The points of the site
            ``name`` are at the site ``f"{name}/point"``.

    Attributes:
        weights: What ``make_guide`` made, the guide of all other sites.

    Raises:
        TypeError: If a prior is not a :class:`DeepFilterPrior`.
        ValueError: If the guide of the weights has no site of such a name, once it is called, or
            its values have not the shape of filters.

    Example:
        >>> from pyro.infer.autoguide import AutoNormal
        >>> from pyro_manifolds.nn import DeepFilterPrior, DeepPriorGuide
        >>> prior = DeepFilterPrior(3).requires_grad_(False)
        >>> def model(y):
        ...     w = pyro.sample("w", prior.hierarchical(torch.zeros(3, 3), site="w/point"))
        ...     pyro.sample("y", dist.Normal(w.sum(), 1.0), obs=y)
        >>> guide = DeepPriorGuide(model, AutoNormal, {"w": prior})
        >>> sorted(guide(torch.tensor(0.0)))
        ['w', 'w/point']
    """

    def __init__(
        self,
        model: Callable[..., Any],
        make_guide: Callable[[Callable[..., Any]], Any],
        priors: Mapping[str, DeepFilterPrior],
    ) -> None:
        super().__init__()
        for name, prior in priors.items():
            if not isinstance(prior, DeepFilterPrior):
                raise TypeError(
                    f"DeepPriorGuide: expected a DeepFilterPrior for '{name}', "
                    f"got {type(prior).__name__}"
                )
        self._priors = tuple(priors.items())  # modules in a tuple are not registered
        self.weights = make_guide(poutine.block(model, hide=[f"{name}/point" for name in priors]))

    @property
    def prototype_trace(self) -> Any:
        """Trace of the model by the guide of the weights, ``None`` before its first call."""
        return self.weights.prototype_trace

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        with poutine.trace() as tracer:
            values = dict(self.weights(*args, **kwargs))
        for name, posterior in self._posteriors(values).items():
            site: Any = tracer.trace.nodes[name]
            rows = site["fn"].event_dim - 2
            values[f"{name}/point"] = pyro.sample(f"{name}/point", posterior.to_event(rows))
        return values

    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the medians of the weights, and the modes of their points."""
        values = dict(self.weights.median(*args, **kwargs))
        posteriors = self._posteriors(values)
        return values | {f"{name}/point": r.mode for name, r in posteriors.items()}

    def _posteriors(self, values: Mapping[str, Tensor]) -> dict[str, WrappedNormal]:
        for name, _ in self._priors:
            if name not in values:
                raise ValueError(
                    f"DeepPriorGuide: expected a site '{name}' of the guide of the weights, "
                    f"got {', '.join(values)}"
                )
        return {name: prior.encode(values[name]) for name, prior in self._priors}
