"""Coordinates of a cloud of points on a manifold: cut open, laid flat, and spread evenly."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import KDTree
from torch import Tensor

__all__ = ["match", "normal_coordinates", "turn_towards"]


def normal_coordinates(
    points: Tensor, dim: int, centre: int = 0, *, neighbours: int = 10
) -> Tensor:
    r"""Return where shortest paths from a centre to the points of a cloud start to, and how far.

    Paths run in the graph of nearest neighbours. With :math:`u_j` the coordinates of points near
    the centre in its tangent space, the vector :math:`v` of a point at distance :math:`d` is as
    long as :math:`d_0` and has the direction of the least-squares solution of

    .. math:: d_j^2 = d_0^2 - 2 \langle v, u_j \rangle + |u_j|^2

    A closed manifold is cut where shortest paths from the centre end to be shortest: at one
    point of a circle or a sphere, along the edges of a square or hexagon on tori and Klein
    bottles. Elsewhere the coordinates are continuous and one to one, up to the error of a graph.

    References:
        | Fast Manifold Learning Based on Riemannian Normal Coordinates (Brun, Westin, Herberthson
          and Knutsson, 2005)
        | A Global Geometric Framework for Nonlinear Dimensionality Reduction (Tenenbaum, de Silva
          and Langford, 2000): distances in graphs of neighbours

    Args:
        points: Shape ``[N, n]``.
        dim: Dimension :math:`m` of the manifold that they lie on.
        centre: Number of the point at which the coordinates are zero.
        neighbours: Number of neighbours of a point in the graph; up to four times as many where
            the graph would be in pieces, as on a curve that is sampled unevenly.

    Returns:
        Shape ``[N, dim]``.

    Raises:
        ValueError: If there are too few points, or the graph is not connected.

    Example:
        >>> from pyro_manifolds.ops.normal_coordinates import normal_coordinates
        >>> angle = torch.linspace(0, 2 * math.pi, 101)[:-1]
        >>> arc = normal_coordinates(torch.stack([angle.cos(), angle.sin()], -1), 1).squeeze(-1)
        >>> arc[[10, 40, 60]].abs()  # the same to both sides, nearly as long as the arcs
        tensor([0.6257, 2.5030, 2.5030])
    """
    cloud = points.detach().double().cpu().numpy()
    count = len(cloud)
    near_count = max(4 * dim, 3 * neighbours)
    if count <= near_count:
        raise ValueError(
            f"normal_coordinates: expected more than {near_count} points, got {count}"
        )
    tree = KDTree(cloud)
    near = tree.query(cloud[centre], near_count)[1]
    near = np.concatenate([[centre], near[near != centre]])
    distances = _path_lengths(tree, neighbours, near)
    if not np.isfinite(distances).all():
        reached = int(np.isfinite(distances[0]).sum())
        raise ValueError(
            "normal_coordinates: expected points of one connected manifold, got a graph in which "
            f"{reached} of {count} points can be reached; take more neighbours, or more points"
        )
    offsets = cloud[near] - cloud[centre]
    tangent = offsets @ np.linalg.svd(offsets, full_matrices=False)[2][:dim].T
    gaps = distances[0] ** 2 - distances**2 + (tangent**2).sum(-1, keepdims=True)
    directions = np.linalg.lstsq(tangent, gaps / 2, rcond=None)[0].T
    size = np.linalg.norm(directions, axis=-1, keepdims=True)
    vectors = directions * (distances[0][:, None] / np.maximum(size, np.finfo(float).tiny))
    return torch.from_numpy(vectors).to(points)


def _path_lengths(tree: KDTree, neighbours: int, starts: np.ndarray) -> np.ndarray:
    """Return lengths of shortest paths, in a graph with more neighbours if it is in pieces."""
    count = len(tree.data)
    for factor in (1, 2, 4):
        number = min(factor * neighbours, count - 1)
        lengths, ends = tree.query(tree.data, number + 1)
        lengths = np.maximum(lengths, np.finfo(float).tiny)  # edges between equal points
        rows = np.repeat(np.arange(count), number)
        edges = (lengths[:, 1:].ravel(), (rows, ends[:, 1:].ravel()))
        graph = csr_array(edges, shape=(count, count))
        distances = dijkstra(graph, directed=False, indices=starts)
        if np.isfinite(distances).all():
            break
    return distances


def match(points: Tensor, targets: Tensor) -> Tensor:
    """Return the targets in an order that makes the sum of squared distances to points least.

    In one dimension this is sorting. The map of points to targets preserves order, and in more
    dimensions it is cyclically monotone: nothing is turned round or folded.

    References:
        | Unsupervised Learning by Predicting Noise (Bojanowski and Joulin, 2017),
          arXiv 1704.05310

    Args:
        points: Shape ``[N, m]``.
        targets: Shape ``[N, m]``.

    Example:
        >>> from pyro_manifolds.ops.normal_coordinates import match
        >>> match(torch.tensor([[5.0], [1.0], [3.0]]), torch.tensor([[0.0], [0.5], [1.0]]))
        tensor([[1.0000],
                [0.0000],
                [0.5000]])
    """
    if points.shape[-1] == 1:
        matched = torch.empty_like(targets)
        matched[points[:, 0].argsort()] = targets[targets[:, 0].argsort()]
        return matched
    cost = torch.cdist(points.detach(), targets).square().cpu().numpy()
    return targets[torch.from_numpy(linear_sum_assignment(cost)[1]).to(targets.device)]


def turn_towards(points: Tensor, targets: Tensor, *, attempts: int = 4, used: int = 400) -> Tensor:
    """Turn points round their mean until they match targets best, and give them their size.

    Normal coordinates have no preferred axes. The cut of a torus is a square, which its corners
    should not have to be bent into a square of other axes. Rotations and matchings take turns,
    from several random starts.

    Args:
        points: Shape ``[N, m]``.
        targets: Shape ``[N, m]``.
        attempts: Number of starts.
        used: Number of the points and targets to match at most.

    Example:
        >>> from pyro_manifolds.ops.normal_coordinates import turn_towards
        >>> square = torch.rand(300, 2)
        >>> diamond = square @ torch.tensor([[1.0, 1.0], [-1.0, 1.0]])
        >>> (turn_towards(diamond, square) - square).abs().max() < 0.1  # or a quarter turn of it
        tensor(...)
    """
    middle, centre = points.mean(0), targets.mean(0)
    points, targets = points - middle, targets - centre
    points = points * (targets.square().mean() / points.square().mean()).sqrt()
    few, goals = points[:used], targets[:used]
    m, best = points.shape[-1], (-torch.inf, torch.eye(points.shape[-1]))
    for _ in range(attempts if m > 1 else 0):
        rotation = torch.linalg.qr(torch.randn(m, m).to(points)).Q
        for _ in range(4):
            matched = match(few @ rotation, goals)
            u, sizes, v = torch.linalg.svd(few.mT @ matched)
            rotation = u @ v
        best = max(best, (sizes.sum().item(), rotation), key=lambda pair: pair[0])
    return points @ best[1].to(points) + centre
