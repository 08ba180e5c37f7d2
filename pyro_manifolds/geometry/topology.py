"""Topology of a finite metric space, read off its distance matrix by persistent homology."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = [
    "TopologyScore",
    "betti_numbers",
    "farthest_point_indices",
    "persistence",
    "topology_score",
]


class TopologyScore(NamedTuple):
    """Bottleneck distances between two persistence diagrams, and their mean.

    Attributes:
        mean: The score: mean of the four parts.
        h1_z2: Loops, over the field with two elements.
        h2_z2: Voids, over the field with two elements.
        h1_z3: Loops, over the field with three elements.
        h2_z3: Voids, over the field with three elements.
    """

    mean: float
    h1_z2: float
    h2_z2: float
    h1_z3: float
    h2_z3: float


def persistence(
    distances: Tensor, *, coeff: int = 2, maxdim: int = 2, max_scale: float = math.inf
) -> list[Tensor]:
    """Persistence diagrams of the Vietoris-Rips filtration.

    Time and memory grow steeply with the number of points: in dimension two, 250 points take
    seconds and 400 points half a minute. Thin the cloud with :func:`farthest_point_indices`.

    References:
        | Ripser: efficient computation of Vietoris-Rips persistence barcodes (Bauer, 2021)
        | https://arxiv.org/abs/1908.02518

    Args:
        distances: Symmetric matrix, shape ``(n, n)``. On a quotient manifold these are the
            distances of the quotient, not those between representatives.
        coeff: Prime number of elements of the coefficient field. Two and three together tell
            the Klein bottle from the torus.
        maxdim: Highest dimension of homology.
        max_scale: Where the filtration ends. Bars alive there have no end; a small value saves
            most of the time.

    Returns:
        For each dimension from 0 to ``maxdim``, births and deaths in the unit of ``distances``,
        shape ``(bars, 2)``. The one component that stays has death ``inf``.

    Raises:
        ValueError: If ``distances`` is not a distance matrix, ``coeff`` not a prime, ``maxdim``
            negative or ``max_scale`` negative or nan.
        ImportError: If ripser is missing.

    Example:
        >>> angle = torch.arange(12) * torch.pi / 6
        >>> circle = torch.stack([angle.cos(), angle.sin()], -1)
        >>> components, loops = persistence(torch.cdist(circle, circle), maxdim=1)
        >>> len(components), loops
        (12, tensor([[0.5176, 1.7321]]))
    """
    matrix = _distance_matrix("persistence", distances)
    if coeff < 2 or any(coeff % k == 0 for k in range(2, math.isqrt(coeff) + 1)):
        raise ValueError(f"persistence: expected a prime coeff, got {coeff}")
    if maxdim < 0:
        raise ValueError(f"persistence: expected maxdim >= 0, got {maxdim}")
    if not max_scale >= 0:
        raise ValueError(f"persistence: expected max_scale >= 0, got {max_scale}")
    options = {"maxdim": maxdim, "coeff": coeff, "thresh": max_scale, "distance_matrix": True}
    diagrams = _ripser()(matrix.numpy(), **options)["dgms"]
    return [torch.as_tensor(diagram).reshape(-1, 2).to(matrix.dtype) for diagram in diagrams]


def betti_numbers(
    distances: Tensor, *, coeff: int = 2, scale: float, maxdim: int = 2
) -> tuple[int, ...]:
    """Betti numbers of the Vietoris-Rips complex at one scale.

    A bar counts if ``birth <= scale < death``; the component that never dies counts. Choose a
    scale between the noise and the size of the space: a loop of length L is filled at L/3, and
    beyond that voids appear which the space does not have. For uniform points on the Klein bottle
    of angles, 0.8 is well inside the window.

    Args:
        distances: As in :func:`persistence`.
        coeff: As in :func:`persistence`.
        scale: In the unit of ``distances``, positive and finite.
        maxdim: Highest dimension of homology.

    Returns:
        Numbers of components, loops, voids, … up to ``maxdim``.

    Raises:
        ValueError: If ``scale`` is not positive and finite, and as in :func:`persistence`.
        ImportError: If ripser is missing.

    Example:
        >>> angle = torch.arange(12) * torch.pi / 6
        >>> circle = torch.stack([angle.cos(), angle.sin()], -1)
        >>> betti_numbers(torch.cdist(circle, circle), scale=1.0, maxdim=1)
        (1, 1)
    """
    if not 0 < scale < math.inf:
        raise ValueError(f"betti_numbers: expected a positive finite scale, got {scale}")
    diagrams = persistence(distances, coeff=coeff, maxdim=maxdim, max_scale=scale)
    # The filtration ends at the scale, so the bars alive there are those without an end.
    return tuple(int(diagram[:, 1].isinf().sum()) for diagram in diagrams)


def farthest_point_indices(distances: Tensor, n: int, *, start: int = 0) -> Tensor:
    """Choose points one after the other, each the farthest from those already chosen.

    The chosen points cover the cloud evenly, which removes most of the noise from a diagram.

    Args:
        distances: As in :func:`persistence`.
        n: How many points, from 1 to all.
        start: Index of the first one.

    Returns:
        Distinct indices in the order of choice, shape ``(n,)``; ties go to the lowest index.

    Raises:
        ValueError: If ``distances`` is not a distance matrix, or ``n`` or ``start`` is out of
            range.

    Example:
        >>> line = torch.arange(5.0)
        >>> farthest_point_indices((line[:, None] - line).abs(), 3)
        tensor([0, 4, 2])
    """
    matrix = _distance_matrix("farthest_point_indices", distances)
    num = len(matrix)
    if not 1 <= n <= num or not 0 <= start < num:
        raise ValueError(
            f"farthest_point_indices: expected 1 <= n <= {num} and 0 <= start < {num}, "
            f"got n = {n} and start = {start}"
        )
    nearest, chosen = matrix[start].clone(), [start]
    while len(chosen) < n:
        nearest[chosen[-1]] = -1.0  # never again, even among coincident points
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, matrix[chosen[-1]])
    return torch.tensor(chosen, device=distances.device)


def topology_score(distances_code: Tensor, distances_truth: Tensor) -> TopologyScore:
    """How far the topology of a code is from the topology of the truth.

    Each matrix is divided by the 90 % quantile of its non-zero distances, so that scale does not
    matter. The score is the mean bottleneck distance between the diagrams of loops and voids over
    the fields with two and three elements. Rows of the two matrices need not correspond.

    Read it against its own scale, measured for uniform points of the Klein bottle as truth and
    400 points a matrix: 0.03 to 0.04 for a second uniform sample, so a right code is below 0.06;
    0.14 for half of the bottle; 0.17 for its coordinates read on the torus that covers it; 0.19
    for any contractible cloud, that is for no topology at all.

    References:
        | Reparameterization through Coverings and Topological Weight Priors
          (Beketov and Snopov, 2026)
        | https://arxiv.org/abs/2604.23804

    Args:
        distances_code: Symmetric matrix, shape ``(n, n)``: distances of the latent manifold
            between the codes of ``n`` observations.
        distances_truth: Symmetric matrix, shape ``(m, m)``: distances between true points.

    Returns:
        The mean and its four parts; zero is best.

    Raises:
        ValueError: If an argument is not a distance matrix, or all its points coincide.
        ImportError: If ripser or persim is missing.

    Example:
        >>> angle = torch.arange(12) * torch.pi / 6
        >>> circle = torch.stack([angle.cos(), angle.sin()], -1)
        >>> ellipse = circle * torch.tensor([1.0, 0.2])
        >>> truth = torch.cdist(circle, circle)
        >>> topology_score(3 * truth, truth).mean < 1e-6
        True
        >>> topology_score(torch.cdist(ellipse, ellipse), truth).mean > 0.1
        True
    """
    code = _unit_scale("distances_code", distances_code)
    truth = _unit_scale("distances_truth", distances_truth)
    parts = [part for coeff in (2, 3) for part in _bottlenecks(code, truth, coeff)]
    return TopologyScore(sum(parts) / len(parts), *parts)


def _distance_matrix(caller: str, distances: Tensor) -> Tensor:
    if distances.dim() != 2 or distances.shape[0] != distances.shape[1] or not len(distances):
        shape = tuple(distances.shape)
        raise ValueError(f"{caller}: expected a square matrix of distances, got shape {shape}")
    matrix = distances.detach().cpu()
    matrix = matrix if matrix.is_floating_point() else matrix.double()
    if not (torch.isfinite(matrix) & (matrix >= 0)).all():
        raise ValueError(f"{caller}: expected finite distances >= 0, got nan, infinity or less")
    # Of single precision, as is all that ripser keeps; cdist leaves as much on the diagonal.
    slack = 1e-3 * float(matrix.max())
    if (matrix - matrix.mT).abs().max() > slack or matrix.diagonal().max() > slack:
        raise ValueError(f"{caller}: expected a symmetric matrix of zero diagonal, got another")
    return ((matrix + matrix.mT) / 2).fill_diagonal_(0.0)


def _unit_scale(name: str, distances: Tensor) -> Tensor:
    matrix = _distance_matrix(f"topology_score ({name})", distances).double()
    positive = matrix[matrix > 0]
    if not len(positive):
        raise ValueError(f"topology_score ({name}): expected two distinct points, got one place")
    return matrix / positive.sort().values.quantile(0.9)


def _bottlenecks(code: Tensor, truth: Tensor, coeff: int) -> list[float]:
    bottleneck = _persim_bottleneck()
    pairs = zip(persistence(code, coeff=coeff), persistence(truth, coeff=coeff), strict=True)
    return [float(bottleneck(a.numpy(), b.numpy())) for a, b in list(pairs)[1:]]


def _ripser() -> Any:
    try:
        from ripser import ripser
    except ImportError as error:
        raise ImportError(_missing("ripser")) from error
    return ripser


def _persim_bottleneck() -> Any:
    try:
        from persim import bottleneck
    except ImportError as error:
        raise ImportError(_missing("persim")) from error
    return bottleneck


def _missing(package: str) -> str:
    return f"geometry.topology: expected {package}; pip install pyro-manifolds[topology]"
