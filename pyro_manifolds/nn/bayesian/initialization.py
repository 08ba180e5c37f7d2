"""Starting guides at the weights that a module has."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from pyro.infer.autoguide.initialization import init_to_median
from torch import Tensor, nn

__all__ = ["init_to_weights"]


def init_to_weights(
    net: nn.Module, *, fallback: Callable[..., Any] = init_to_median
) -> Callable[..., Any]:
    """Return an ``init_loc_fn`` for Pyro's guides and kernels: the weights of a torch module.

    Pyro's own start sites near zero, where the hidden units of a net are all alike and hardly any
    gradient gets through. The weights are read when this is called, after any training that they
    have had.

    Args:
        net: The module that was given to :class:`BayesianModule`.
        fallback: Start of all other sites, such as hyperparameters.

    Raises:
        ValueError: While the guide is made, if a weight has another shape than its site or is
            outside its support.

    Example:
        >>> from pyro_manifolds.nn.bayesian import BayesianModule, init_to_weights
        >>> net = torch.nn.Linear(3, 2)
        >>> guide = pyro.infer.autoguide.AutoDelta(
        ...     BayesianModule(net), init_loc_fn=init_to_weights(net)
        ... )
        >>> x, y = torch.zeros(5, 3), torch.tensor([0, 1, 0, 1, 0])
        >>> bool((guide(x, y)["weight"] == net.weight).all())
        True
    """
    values = {
        name: value.detach().clone()
        for name, value in net.named_parameters(remove_duplicate=False)
    }
    return partial(_init_to_weights, values, fallback)


def _init_to_weights(
    values: dict[str, Tensor], fallback: Callable[..., Any], site: dict[str, Any]
) -> Tensor:
    name, fn = site["name"], site["fn"]
    if name not in values:
        start: Tensor = fallback(site)
        return start
    value = values[name]
    if value.shape != fn.event_shape:
        raise ValueError(
            f"init_to_weights: expected a weight of shape {tuple(fn.event_shape)} at site "
            f"'{name}', got {tuple(value.shape)}"
        )
    if not bool(fn.support.check(value).all()):
        raise ValueError(f"init_to_weights: expected weights in the support of site '{name}'")
    # A guide trains what it is given, which must not be the net's own.
    return value.expand(torch.Size(fn.batch_shape) + value.shape).clone()
