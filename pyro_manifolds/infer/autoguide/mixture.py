"""Mixtures whose gradients every ELBO of Pyro estimates without bias."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions.score_parts import ScoreParts
from torch import Size, Tensor, nn
from torch.types import _size

from pyro_manifolds.distributions.manifold_mixture import ManifoldMixture

__all__ = ["Baseline", "ScoredMixture"]


class Baseline(nn.Module):
    """Running average of what multiplies a score in an ELBO, taken off before it does.

    A score has mean zero, so a constant from earlier steps changes no expectation, but without it
    the noise grows with the log-density of the data. ``attach`` makes the average of the gradients
    that come back to the score and subtracts it; the first step, which has none, passes nothing.
    The average is a buffer, so that a run which is resumed goes on with it.

    Args:
        decay: Weight of the past.

    Example:
        >>> from pyro_manifolds.infer.autoguide.mixture import Baseline
        >>> baseline, weight = Baseline(), torch.tensor(1.0, requires_grad=True)
        >>> for reward in (-1000.0, -1001.0):
        ...     (reward * baseline.attach(2 * weight)).backward()
        >>> weight.grad
        tensor(-2.)
    """

    value: Tensor

    def __init__(self, decay: float = 0.9) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("value", torch.tensor(torch.nan, dtype=torch.float64))

    def attach(self, score: Tensor) -> Tensor:
        """Return the score, with a gradient from which the average is subtracted."""
        if score.requires_grad:
            score.register_hook(self._centre)
        return score

    def _centre(self, gradient: Tensor) -> Tensor:
        before = self.value.to(gradient)
        average = gradient.detach().mean()
        mixed = self.decay * before + (1 - self.decay) * average
        after = torch.where(before.isnan(), average, mixed)
        # A step that overflowed leaves the average alone.
        self.value.copy_(torch.where(average.isfinite(), after, before))
        return torch.where(before.isnan(), 0.0, gradient - before)


class ScoredMixture(ManifoldMixture):
    r"""Mixture for guides: pathwise gradients of the components, scores of the weights.

    A draw :math:`z` of component :math:`c` carries the pathwise gradient of that component. To the
    weights it owes the score of the *marginal*, :math:`\nabla_w \log q(z)`, which averages
    over the components that could have drawn :math:`z`; together they are unbiased, for
    :math:`z` has the density :math:`q = \sum_k w_k q_k`. There is no auxiliary site, and
    ``log_prob`` is that of the mixture. ``has_rsample`` is false, so that ``TraceGraph_ELBO``
    and ``TraceEnum_ELBO`` know that there is a score, and ``TraceMeanField_ELBO``, which takes
    none, refuses.

    References:
        | Automatic Differentiation Variational Inference with Mixtures (Morningstar et al., 2021),
          arXiv 2003.01687, on other estimators for mixtures

    Args:
        mixture_distribution: ``Categorical`` of the weights, ``batch_shape``.
        component_distribution: The components, ``batch_shape + (number,)``, with ``rsample``.

    Example:
        >>> from pyro_manifolds.infer.autoguide.mixture import ScoredMixture
        >>> loc = torch.tensor([0.0, 3.0], requires_grad=True)
        >>> d = ScoredMixture(dist.Categorical(torch.ones(2)), WrappedNormal(Circle(), loc, 0.5))
        >>> d().backward()
        >>> loc.grad
        tensor([0., 1.])
    """

    baseline: Baseline | None = None

    def __call__(self, sample_shape: _size = Size()) -> Tensor:
        """Draw points, differentiable by the parameters of the components that drew them."""
        shape = Size(sample_shape)
        chosen = self.mixture_distribution.expand(self.batch_shape).sample(shape)
        draws = self.component_distribution.rsample(shape)
        dim = chosen.dim()
        index = chosen.reshape(chosen.shape + (1,) * (1 + self.event_dim))
        index = index.expand(chosen.shape + (1,) + self.event_shape)
        return draws.gather(dim, index).squeeze(dim)

    def score_parts(self, x: Tensor, *args: Any, **kwargs: Any) -> ScoreParts:
        """Split the density into what is differentiated along paths and what as a score."""
        log_weights = self.mixture_distribution.logits.log_softmax(-1)
        log_components = self.component_distribution.log_prob(self._pad(x))
        log_prob = (log_weights + log_components).logsumexp(-1)
        score = (log_weights + log_components.detach()).logsumexp(-1)
        if self.baseline is not None:
            score = self.baseline.attach(score)
        # Without the weights, whose explicit derivative has mean zero and only adds noise.
        path = (log_weights.detach() + log_components).logsumexp(-1)
        return ScoreParts(log_prob, score, path)

    def expand(self, batch_shape: _size, _instance: Any = None) -> ScoredMixture:
        new = super().expand(batch_shape, _instance=_instance)
        new.baseline = self.baseline
        return new
