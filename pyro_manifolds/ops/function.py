"""Autograd functions on tensors of any class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

__all__ = ["apply"]


def apply(function: type[torch.autograd.Function], *args: Any) -> Any:
    """Apply an autograd function, to tensors of a subclass by way of what that says.

    ``function.apply`` itself takes a subclass for plain tensors and loses what it holds: those by
    which Pyro's ``TraceGraph_ELBO`` records where a value comes from would lose their gradient.
    """
    tensors = [x for x in args if isinstance(x, Tensor)]
    if has_torch_function(tensors):
        return handle_torch_function(apply, tensors, function, *args)
    return function.apply(*args)
