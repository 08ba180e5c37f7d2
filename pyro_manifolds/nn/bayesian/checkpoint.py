"""Saving and loading a model together with its guide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

__all__ = ["checkpoint", "restore"]


def checkpoint(model: nn.Module, guide: nn.Module) -> dict[str, Any]:
    """Return the states of a model and its guide, as one dictionary for ``torch.save``.

    Args:
        model: A :class:`BayesianModule`.
        guide: Its guide, which has been called.

    Raises:
        ValueError: If the guide has no parameters yet.

    Example:
        >>> from pyro_manifolds.nn.bayesian import BayesianModule, checkpoint, restore
        >>> x, y = torch.randn(5, 4), torch.randint(3, (5,))
        >>> model = BayesianModule(torch.nn.Linear(4, 3))
        >>> guide = pyro.infer.autoguide.AutoNormal(model)
        >>> _ = guide(x, y)
        >>> state = checkpoint(model, guide)
        >>> other = BayesianModule(torch.nn.Linear(4, 3))
        >>> restore(state, other, pyro.infer.autoguide.AutoNormal(other), x)
    """
    if getattr(guide, "prototype_trace", guide) is None:
        raise ValueError("checkpoint: expected a guide that has been called, got a new one")
    return {"model": model.state_dict(), "guide": guide.state_dict()}


def restore(
    state: Mapping[str, Any],
    model: nn.Module,
    guide: nn.Module,
    x: Tensor | tuple[Tensor, ...],
) -> None:
    """Load what :func:`checkpoint` returned into a model and a guide that are made anew.

    An automatic guide has no parameters before its first call, and ``load_state_dict`` nothing to
    load into; here it is called, with targets drawn from the model.

    Args:
        state: What :func:`checkpoint` returned.
        model: A :class:`BayesianModule` like the one that was saved.
        guide: A guide like the one that was saved, of ``model``.
        x: A few inputs, of any value.

    Raises:
        RuntimeError: If the states do not fit, from ``load_state_dict``.
    """
    with torch.random.fork_rng(), torch.no_grad():
        y = poutine.trace(model).get_trace(x).nodes["y"]["value"]
        guide(x, y)
    model.load_state_dict(state["model"])
    guide.load_state_dict(state["guide"])
