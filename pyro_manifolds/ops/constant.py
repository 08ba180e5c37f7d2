"""Constant tensors, in the dtype and on the device of what they meet."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Constant"]

_CPU = torch.device("cpu")


class Constant:
    """A tensor of numbers, with a copy for every dtype and device that asked for one.

    Args:
        values: The numbers; they carry no gradient.

    Example:
        >>> from pyro_manifolds.ops.constant import Constant
        >>> half = Constant(torch.tensor(0.5))
        >>> half.like(torch.zeros(3, dtype=torch.float64))
        tensor(0.5000, dtype=torch.float64)
    """

    def __init__(self, values: Tensor) -> None:
        # Made here, not when first asked for, so that nothing is traced or cached inside a
        # transform of torch.func, a compiled function or inference mode.
        with torch.inference_mode(False):
            values = values.detach().to(_CPU, torch.float64, copy=True)
            self._copies = {
                (torch.float64, _CPU): values,
                (torch.float32, _CPU): values.to(torch.float32),
            }

    @property
    def values(self) -> Tensor:
        """The numbers in float64."""
        return self._copies[torch.float64, _CPU]

    def like(self, x: Tensor) -> Tensor:
        """Return the numbers in the dtype and on the device of a tensor."""
        key = (x.dtype, x.device)
        found = self._copies.get(key)
        if found is None:
            found = self.values.to(x.device, x.dtype)
            if not torch.is_inference_mode_enabled():
                self._copies[key] = found
        return found

    def __reduce__(self) -> tuple[type[Constant], tuple[Tensor]]:
        return type(self), (self.values,)
