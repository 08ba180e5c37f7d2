"""Arguments of distributions, as users write them."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["as_tensors"]


def as_tensors(first: Tensor | float, second: Tensor | float) -> tuple[Tensor, Tensor]:
    """Return both as tensors of one floating type, the wider one, on the device of the first.

    Example:
        >>> from pyro_manifolds.distributions.arguments import as_tensors
        >>> as_tensors(torch.tensor([1, 0]), 0.5)
        (tensor([1., 0.]), tensor(0.5000))
    """
    first = torch.as_tensor(first)
    if not first.is_floating_point():
        first = first.to(torch.get_default_dtype())
    if not isinstance(second, Tensor):
        return first, torch.as_tensor(second, dtype=first.dtype, device=first.device)
    if second.dtype != first.dtype:
        dtype = torch.promote_types(first.dtype, second.dtype)
        return first.to(dtype), second.to(dtype)
    return first, second
