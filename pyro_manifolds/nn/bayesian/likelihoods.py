"""Distributions of the target, given the output of a net."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn import PyroModule, PyroParam
from torch import Tensor

from pyro_manifolds.nn.bayesian.placement import placed_like

__all__ = ["classification", "regression"]


def classification(output: Tensor) -> dist.Categorical:
    """Return the distribution of labels whose logits are the output.

    Args:
        output: Logits, shape ``(..., number of classes)``. Labels are integers.

    Raises:
        ValueError: If there are fewer than two classes.

    Example:
        >>> classification(torch.zeros(5, 10)).batch_shape
        torch.Size([5])
    """
    if output.dim() < 2 or output.shape[-1] < 2:
        raise ValueError(
            "classification: expected output of shape (batch, classes) with two or more classes, "
            f"got {tuple(output.shape)}"
        )
    return dist.Categorical(logits=output)


class regression(PyroModule):  # noqa: N801 - used as a function; a module, for a learned scale
    """Likelihood of real targets: normal about the output, independent in all its entries.

    Targets have the shape of the output. A net that ends in ``nn.Linear(n, 1)`` has targets of
    shape ``(batch, 1)``; for targets of shape ``(batch,)`` let it end in ``nn.Flatten(0)``.

    Args:
        scale: Standard deviation of the noise: a number, or a tensor that broadcasts against one
            output; a distribution, from which it is sampled as the site ``"likelihood.scale"``,
            outside the plate of the data; or a ``PyroParam``, with which it is learned.

    Raises:
        ValueError: If a number is not positive.

    Example:
        >>> regression(0.1)(torch.zeros(5, 2)).batch_shape
        torch.Size([5, 2])
        >>> noise = PyroParam(torch.tensor(0.1), dist.constraints.positive)
        >>> [name for name, _ in regression(noise).named_parameters()]
        ['scale_unconstrained']
    """

    scale: Any

    def __init__(self, scale: float | Tensor | TorchDistributionMixin | PyroParam = 1.0) -> None:
        super().__init__()
        if isinstance(scale, (int, float)) and not scale > 0:
            raise ValueError(f"regression: expected scale > 0, got {scale}")
        if isinstance(scale, Tensor) and not scale.requires_grad:
            self.register_buffer("scale", scale)
        else:
            self.scale = scale

    def forward(self, output: Tensor) -> dist.Normal:
        scale = self.scale
        if isinstance(scale, TorchDistributionMixin):
            name = self._pyro_get_fullname("scale")
            prior = placed_like(scale, output)
            own = len(prior.batch_shape) + prior.event_dim
            scale = pyro.sample(name, prior)
            if scale.dim() > own > 0:  # vectorised: particles, and one dimension for the data
                gap = (1,) * (output.dim() - scale.dim())
                split = scale.dim() - own
                scale = scale.reshape(scale.shape[:split] + gap + scale.shape[split:])
        return dist.Normal(output, scale)
