"""Distributions in the dtype and on the device of something else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.overrides import TorchFunctionMode

__all__ = ["placed_like"]

_D = TypeVar("_D")


class _CopyTo(TorchFunctionMode):
    """While it is on, ``copy.deepcopy`` moves tensors instead of copying them."""

    def __init__(self, like: Tensor, detach: bool) -> None:
        super().__init__()
        self.like, self.detach = like, detach

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is not Tensor.__deepcopy__:
            return func(*args, **(kwargs or {}))
        tensor: Tensor = args[0].detach() if self.detach else args[0]
        dtype = self.like.dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.to(self.like.device, dtype)


def placed_like(distribution: _D, like: Tensor, *, detach: bool = False) -> _D:
    """Return the distribution with its tensors in the dtype and on the device of ``like``.

    Distributions have no ``to``. Tensors that are in place already are not copied, and gradients
    flow to the others unless they are cut off.

    Args:
        distribution: Any distribution.
        like: A floating tensor.
        detach: Whether to cut the tensors off from what they were computed from.
    """
    with _CopyTo(like, detach):
        placed = copy.deepcopy(distribution)
    _tell(placed, like)
    return placed


def _tell(distribution: object, like: Tensor) -> None:
    """Set what distributions without tensors know of their place."""
    for name, value in list(vars(distribution).items()):
        if isinstance(value, torch.dtype) and value.is_floating_point:
            setattr(distribution, name, like.dtype)
        elif isinstance(value, torch.device):
            setattr(distribution, name, like.device)
        elif isinstance(value, Distribution):
            _tell(value, like)
