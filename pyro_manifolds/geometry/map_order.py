"""Maps on a torus: whether neighbours are alike, and how alike they would be by chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["ClassPreference", "MapOrder", "class_preference", "map_order", "torus_neighbors"]


class MapOrder(NamedTuple):
    """Mean of a quantity over neighbours on a map, next to its null.

    Attributes:
        value: Mean over all pairs of neighbours.
        null_mean: Mean of that over random permutations of the places.
        null_std: Standard deviation of that over permutations.
        p_value: Share of permutations at least as far from ``null_mean``, in either direction;
            never below one over their number plus one.
    """

    value: float
    null_mean: float
    null_std: float
    p_value: float

    @property
    def z(self) -> float:
        """Distance from the null in its standard deviations."""
        return (self.value - self.null_mean) / max(self.null_std, 1e-12)


class ClassPreference(NamedTuple):
    """Which class each place of a map responds to most.

    Attributes:
        classes: The class of largest mean response, ``[*map_shape]``.
        means: Mean response to each class, ``[num_classes, *map_shape]``.
        selectivity: Share of the variance of the response that lies between classes, from 0 to
            1, ``[*map_shape]``.
    """

    classes: Tensor
    means: Tensor
    selectivity: Tensor


def torus_neighbors(shape: Sequence[int]) -> Tensor:
    """Return all pairs of neighbours on a torus, each once, as places in the flattened map.

    Args:
        shape: Height and width. Along a side of one place there are no neighbours.

    Returns:
        Pairs, ``[num_pairs, 2]``, int64.

    Example:
        >>> from pyro_manifolds.geometry import torus_neighbors
        >>> torus_neighbors((1, 3)).tolist()
        [[0, 1], [1, 2], [0, 2]]
    """
    height, width = _checked("torus_neighbors", shape)
    places = torch.arange(height * width).reshape(height, width)
    moved = [places.roll(-1, axis) for axis in (0, 1) if shape[axis] > 1]
    if not moved:
        raise ValueError("torus_neighbors: expected a map of at least two places, got one")
    pairs = torch.cat([torch.stack([places, other], -1).reshape(-1, 2) for other in moved])
    return _once(pairs.sort(-1).values)


def map_order(
    pairwise: Tensor, shape: Sequence[int], *, num_permutations: int = 1000, seed: int = 0
) -> MapOrder:
    """Average a quantity of pairs over neighbours on a torus, and over shuffled places.

    The null keeps everything but the order: the same units, at random places. It tells whether a
    map is ordered, not what ordered it. A prior that couples neighbours orders maps of untrained
    networks too: compare with those as well.

    Args:
        pairwise: The quantity for units i and j, symmetric, ``[n, n]``: a difference of tuning, a
            correlation, or whether two agree. Units are numbered row by row.
        shape: Height and width of the map, of product n.
        num_permutations: Number of random permutations.
        seed: Seed of the permutations; the global generator is left alone.

    Raises:
        ValueError: If shapes do not fit, or there is no permutation.

    Example:
        >>> from pyro_manifolds.geometry import map_order
        >>> angle = torch.arange(36.0) * 2 * math.pi / 36
        >>> likeness = (angle[:, None] - angle).cos()
        >>> order = map_order(likeness, (1, 36))
        >>> round(order.value, 3), order.p_value < 0.01
        (0.985, True)
    """
    height, width = _checked("map_order", shape)
    size = height * width
    if pairwise.shape != (size, size):
        raise ValueError(
            f"map_order: expected pairwise of shape {(size, size)}, got {tuple(pairwise.shape)}"
        )
    if num_permutations < 1:
        raise ValueError(f"map_order: expected num_permutations >= 1, got {num_permutations}")
    pairwise = pairwise.detach().cpu().double()
    first, second = torus_neighbors((height, width)).unbind(-1)
    value = pairwise[first, second].mean()
    generator = torch.Generator().manual_seed(seed)
    orders = torch.stack(
        [torch.randperm(size, generator=generator) for _ in range(num_permutations)]
    )
    null = pairwise[orders[:, first], orders[:, second]].mean(-1)
    # Means of the same numbers in another order differ by rounding.
    slack = 1e-9 * (1 + null.abs().max())
    extreme = (null - null.mean()).abs() >= (value - null.mean()).abs() - slack
    p_value = (1 + int(extreme.sum())) / (1 + num_permutations)
    return MapOrder(
        float(value), float(null.mean()), float(null.std(correction=0)), float(p_value)
    )


def class_preference(
    responses: Tensor, labels: Tensor, num_classes: int | None = None
) -> ClassPreference:
    """Find which class each place of a map responds to most, and how much classes matter to it.

    Args:
        responses: Response of each place to each datum, ``[n, *map_shape]``.
        labels: Class of each datum from 0 on, int64, ``[n]``.
        num_classes: Number of classes; one more than the largest label by default.

    Raises:
        ValueError: If shapes do not fit or a class has no datum.

    Example:
        >>> from pyro_manifolds.geometry import class_preference
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> responses = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
        >>> found = class_preference(responses, labels)
        >>> found.classes.tolist(), [round(x, 2) for x in found.selectivity.tolist()]
        ([0, 1], [1.0, 0.33])
    """
    if responses.dim() < 2 or labels.shape != responses.shape[:1]:
        raise ValueError(
            "class_preference: expected responses of shape (n, *map_shape) and labels of shape "
            f"(n,), got {tuple(responses.shape)} and {tuple(labels.shape)}"
        )
    number = int(labels.max()) + 1 if num_classes is None else num_classes
    counts = torch.bincount(labels, minlength=number)
    if int(labels.min()) < 0 or len(counts) != number or not bool((counts > 0).all()):
        raise ValueError(
            f"class_preference: expected data of all classes from 0 to {number - 1} and of no "
            f"other, got {len(labels.unique())} classes from {int(labels.min())} to "
            f"{int(labels.max())}"
        )
    flat = responses.detach().flatten(1)
    means = torch.stack([flat[labels == c].mean(0) for c in range(number)])
    share = (counts / len(labels)).to(flat)[:, None]
    between = (share * (means - flat.mean(0)).square()).sum(0)
    total = flat.var(0, correction=0).clamp(min=torch.finfo(flat.dtype).tiny)
    shape = responses.shape[1:]
    return ClassPreference(
        means.argmax(0).reshape(shape),
        means.reshape(number, *shape),
        (between / total).clamp(max=1.0).reshape(shape),
    )


def _once(pairs: Tensor) -> Tensor:
    """Keep the first of equal rows: around a ring of two, both ways lead to one neighbour."""
    found = dict.fromkeys(map(tuple, pairs.tolist()))
    return torch.tensor(list(found))


def _checked(caller: str, shape: Sequence[int]) -> tuple[int, int]:
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"{caller}: expected a height and a width, got {tuple(shape)}")
    return int(shape[0]), int(shape[1])
