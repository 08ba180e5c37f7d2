"""Saving and loading a model together with its guide."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.reparam_messenger import ReparamHandler
from torch import Tensor, nn

from pyro_manifolds.nn.bayesian.observations import TARGETS

__all__ = ["checkpoint", "restore"]


def checkpoint(model: Callable[..., Any], guide: nn.Module) -> dict[str, Any]:
    """Return the states of a model and its guide, as one dictionary for ``torch.save``.

    Args:
        model: A :class:`BayesianModule`, or one that is wrapped in handlers.
        guide: Its guide, which has been called.

    Raises:
        TypeError: If the model is no module.
        ValueError: If the guide has no parameters yet.

    Example:
        >>> from pyro_manifolds.nn.bayesian import BayesianModule, checkpoint, restore
        >>> x, y = torch.randn(5, 4), torch.randint(3, (5,))
        >>> model = BayesianModule(torch.nn.Linear(4, 3))
        >>> guide = pyro.infer.autoguide.AutoNormal(model)
        >>> _ = guide(x, y)
        >>> state = checkpoint(model, guide)
        >>> pyro.clear_param_store()  # as in a new process
        >>> other = BayesianModule(torch.nn.Linear(4, 3))
        >>> restore(state, other, pyro.infer.autoguide.AutoNormal(other), x)
    """
    if getattr(guide, "prototype_trace", guide) is None:
        raise ValueError("checkpoint: expected a guide that has been called, got a new one")
    return {"model": _module_in(model, "checkpoint").state_dict(), "guide": guide.state_dict()}


def restore(
    state: Mapping[str, Any],
    model: Callable[..., Any],
    guide: nn.Module,
    x: Tensor | tuple[Tensor, ...],
) -> None:
    """Load what :func:`checkpoint` returned into a model and a guide that are made anew.

    An automatic guide has no parameters before its first call, and ``load_state_dict`` nothing to
    load into; here it is called, with targets drawn from the model.

    Guides of the same class and sites share their parameters by name in Pyro's store, unless
    ``module_local_params`` is set: a warning tells if a new guide is given those of another, which
    are overwritten too. Call ``pyro.clear_param_store()`` before to keep them apart.

    Args:
        state: What :func:`checkpoint` returned.
        model: A :class:`BayesianModule` like the one that was saved, or one in handlers.
        guide: A guide like the one that was saved, of ``model``.
        x: A few inputs, of any value.

    Raises:
        TypeError: If the model is no module.
        RuntimeError: If the states do not fit, from ``load_state_dict``.
    """
    module, own = _module_in(model, "restore"), {id(p) for p in guide.parameters()}
    others = {id(p): name for name, p in pyro.get_param_store().named_parameters()}
    with torch.random.fork_rng(_cuda_devices(module, guide, x)), torch.no_grad():
        nodes: Any = poutine.trace(model).get_trace(x).nodes
        (y,) = [site["value"] for site in nodes.values() if TARGETS in site.get("infer", ())]
        guide(x, y)
    shared = {id(p) for p in guide.parameters()} & others.keys() - own
    if shared:
        warnings.warn(
            f"restore: the parameter store holds '{others[shared.pop()]}' of another guide, which "
            "is overwritten too; call pyro.clear_param_store() first",
            stacklevel=2,
        )
    module.load_state_dict(state["model"])
    guide.load_state_dict(state["guide"])


def _cuda_devices(
    module: nn.Module, guide: nn.Module, x: Tensor | tuple[Tensor, ...]
) -> set[torch.device]:
    """Return the devices of which a call may draw random numbers."""
    inputs = (x,) if isinstance(x, Tensor) else x
    tensors = [*module.parameters(), *module.buffers(), *guide.parameters(), *inputs]
    return {tensor.device for tensor in tensors if tensor.is_cuda}


def _module_in(model: Any, caller: str) -> nn.Module:
    """Return what handlers are wrapped around."""
    inner = poutine.unwrap(model)
    while isinstance(inner, ReparamHandler):
        inner = poutine.unwrap(inner.fn)
    if not isinstance(inner, nn.Module):
        raise TypeError(
            f"{caller}: expected model to be a module, or one in handlers, got "
            f"{type(inner).__name__}"
        )
    return inner
