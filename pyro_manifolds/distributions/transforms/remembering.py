"""Transforms whose copies remember the last value."""

from __future__ import annotations

from typing import Any, TypeVar

from torch.distributions import Transform

__all__ = ["RememberingTransform"]

Self = TypeVar("Self", bound="RememberingTransform")


class RememberingTransform(Transform):
    """Transform for which ``with_cache`` is a shallow copy, with the same parameters."""

    def __getstate__(self) -> dict[str, Any]:
        # What is remembered belongs to one graph of autograd and cannot be copied.
        return {**super().__getstate__(), "_cached_x_y": (None, None)}

    def with_cache(self: Self, cache_size: int = 1) -> Self:
        """Return a shallow copy, equal to this, that remembers so many values (0 or 1)."""
        new = object.__new__(type(self))  # torch.compile does not follow copy.copy
        for name, value in vars(self).items():
            setattr(new, name, value)
        new._inv, new._cached_x_y, new._cache_size = None, (None, None), cache_size
        return new
