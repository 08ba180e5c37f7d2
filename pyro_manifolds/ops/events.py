"""Events of several shapes, flattened and laid side by side along the last dimension."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["join_events", "split_events"]


def join_events(parts: Sequence[Tensor], event_shapes: Sequence[Sequence[int]]) -> Tensor:
    """Flatten the event of each part and concatenate; the batch shapes broadcast.

    Args:
        parts: Tensors ``[..., *event_shape]``.
        event_shapes: The shape of each part's event.

    Example:
        >>> parts = torch.zeros(4, 1), torch.ones(2, 2)
        >>> join_events(parts, [torch.Size([1]), torch.Size([2, 2])]).shape
        torch.Size([4, 5])
    """
    pairs = list(zip(parts, event_shapes, strict=True))
    flat = [x.reshape(x.shape[: x.dim() - len(shape)] + (math.prod(shape),)) for x, shape in pairs]
    batch = torch.broadcast_shapes(*(x.shape[:-1] for x in flat))
    return torch.cat([x.expand(batch + x.shape[-1:]) for x in flat], -1)


def split_events(joined: Tensor, event_shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """Undo :func:`join_events`.

    Args:
        joined: Tensor ``[..., n]``, n being the number of entries of all events.
        event_shapes: The shape of each part's event.

    Example:
        >>> shapes = [torch.Size([]), torch.Size([2, 2])]
        >>> [x.shape for x in split_events(torch.zeros(4, 5), shapes)]
        [torch.Size([4]), torch.Size([4, 2, 2])]
    """
    pieces = joined.split([math.prod(shape) for shape in event_shapes], -1)
    pairs = zip(pieces, event_shapes, strict=True)
    return [x.reshape(x.shape[:-1] + torch.Size(shape)) for x, shape in pairs]
