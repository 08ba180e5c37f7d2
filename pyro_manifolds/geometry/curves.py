"""Energy and length of curves of latents, and the shortest ones between two codes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_manifolds.ops.complex_linalg import join_parts, split_parts

__all__ = ["Geodesic", "curve_energy", "curve_length", "geodesic"]

Metric = Callable[[Tensor], Tensor]


class Geodesic(NamedTuple):
    """A shortest curve, as far as it was found.

    Attributes:
        points: Points of the curve, ends included, shape ``[..., T, n]``.
        length: Its length, shape ``[...]``.
        straight_length: Length of the straight line between the same ends.
        converged: Whether the residual is within the tolerance.
        residual: Largest derivative of the energy by a mode of the curve, over the energy.
        num_steps: Number of steps of the optimiser, shape ``[...]``.
    """

    points: Tensor
    length: Tensor
    straight_length: Tensor
    converged: Tensor
    residual: Tensor
    num_steps: Tensor

    @property
    def length_ratio(self) -> Tensor:
        """Length of the geodesic over that of the straight line: one where space is flat."""
        return self.length / self.straight_length


def curve_energy(metric: Metric, points: Tensor) -> Tensor:
    r"""Return the energy :math:`\int_0^1 |\dot\gamma|^2 dt` of a broken line.

    It is at least the square of the length, with equality for constant speed, so that its minimum
    is a shortest curve that is run through evenly. The metric of a piece is the mean of those at
    its ends, for an error of the order of the square of the step. (At its middle it could be
    small where both ends are in a region of large distances, and a curve would leap over it.)

    Args:
        metric: Function of points ``[..., n]``. It returns real symmetric matrices, by the real
            view if points are complex, as :func:`fisher_metric` does; or
            Hermitian ones :math:`g`, that stand for the squared length
            :math:`2 g_{ij} dz_i d\bar z_j`, as those of :func:`hermitian_fisher` and of potentials
            do.
        points: Real or complex, shape ``[..., T, n]``, with T of two or more.

    Returns:
        Energies of shape ``[...]``.

    Raises:
        ValueError: If there are fewer than two points, or matrices have another shape.

    Example:
        >>> from pyro_manifolds.geometry import curve_energy
        >>> line = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
        >>> curve_energy(lambda z: torch.eye(2).expand(*z.shape, 2), line)
        tensor(25.)
    """
    squares = _squared_steps("curve_energy", metric, points)
    return squares.sum(-1) * squares.shape[-1]


def curve_length(metric: Metric, points: Tensor) -> Tensor:
    """Return the length of a broken line.

    Args:
        metric: As for :func:`curve_energy`.
        points: Real or complex, shape ``[..., T, n]``, with T of two or more.

    Returns:
        Lengths of shape ``[...]``.

    Raises:
        ValueError: If there are fewer than two points, or matrices have another shape.

    Example:
        >>> from pyro_manifolds.geometry import curve_length
        >>> bend = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]])
        >>> curve_length(lambda z: torch.eye(2).expand(*z.shape, 2), bend)
        tensor(7.)
    """
    return _squared_steps("curve_length", metric, points).clamp(min=0).sqrt().sum(-1)


def geodesic(
    metric: Metric,
    start: Tensor,
    end: Tensor,
    *,
    num_points: int = 33,
    num_modes: int | None = None,
    max_steps: int = 200,
    tol: float = 1e-3,
) -> Geodesic:
    r"""Find the shortest curve between two points, from the straight line on.

    The energy of a broken line is minimised by L-BFGS over the sine series of its distance from
    the straight line, with coefficients divided by their frequency: in a flat space, all of them
    then weigh the same. Curves of a batch are found one after the other. What is found is a local
    minimum: another, shorter curve may go round the other side of an obstacle. Read ``converged``
    before anything else.

    Args:
        metric: As for :func:`curve_energy`; it must be differentiable.
        start: Real or complex, shape ``[..., n]``.
        end: Of the same kind; broadcasts with ``start``.
        num_points: Number of points of the broken line, ends included.
        num_modes: Number of sines for each coordinate, by default as many as there are inner
            points; fewer make a smoother curve in fewer steps.
        max_steps: Largest number of steps of L-BFGS.
        tol: Residual at which a curve is good enough. Lengths are then right to about its square.

    Returns:
        The curve, its length, and how well it was found.

    Raises:
        TypeError: If one end is real and the other complex.
        ValueError: If ``num_points`` is less than three, or ``num_modes`` not between one and the
            number of inner points.

    Example:
        >>> from pyro_manifolds.geometry import geodesic
        >>> def half_plane(z):
        ...     return torch.eye(2) / z[..., 1, None, None] ** 2
        >>> found = geodesic(half_plane, torch.tensor([-1.0, 1.0]), torch.tensor([1.0, 1.0]))
        >>> found.converged, found.length, found.straight_length  # near arcosh(3) = 1.7627, and 2
        (tensor(True), tensor(1.7632), tensor(2.))
    """
    if start.is_complex() != end.is_complex():
        raise TypeError(
            f"geodesic: expected two ends of one kind, got {start.dtype} and {end.dtype}"
        )
    num_inner = num_points - 2
    num_modes = num_inner if num_modes is None else num_modes
    if num_inner < 1 or not 1 <= num_modes <= num_inner:
        raise ValueError(
            "geodesic: expected num_points >= 3 and 1 <= num_modes <= num_points - 2, "
            f"got {num_points} and {num_modes}"
        )
    start, end = torch.broadcast_tensors(start.detach(), end.detach())
    line, waves = _line(start, end, num_points), _sines(num_points, num_modes, start)
    # One by one: a history of L-BFGS for all curves together takes ten times the steps.
    lines = line.reshape(-1, *line.shape[-2:])
    found = [_relaxed(metric, one, waves, max_steps, tol) for one in lines]
    points, residual, steps = (
        torch.stack(parts).reshape(start.shape[:-1] + parts[0].shape)
        for parts in zip(*found, strict=True)
    )
    with torch.no_grad():
        lengths = curve_length(metric, points), curve_length(metric, line)
    return Geodesic(points, *lengths, residual <= tol, residual, steps)


def _squared_steps(caller: str, metric: Metric, points: Tensor) -> Tensor:
    if points.dim() < 2 or points.shape[-2] < 2:
        raise ValueError(
            f"{caller}: expected points of shape (..., T, n) with T of two or more, "
            f"got {tuple(points.shape)}"
        )
    step, matrix = points.diff(dim=-2), metric(points)
    hermitian = matrix.is_complex()
    if step.is_complex() and not hermitian:
        step = split_parts(step)
    size = step.shape[-1]
    if matrix.shape != points.shape[:-1] + (size, size):
        raise ValueError(
            f"{caller}: expected a metric of shape {(*points.shape[:-1], size, size)} at points "
            f"of shape {tuple(points.shape)}, got {tuple(matrix.shape)}"
        )
    matrix = (matrix[..., 1:, :, :] + matrix[..., :-1, :, :]) / 2
    image = (matrix @ step.conj().unsqueeze(-1)).squeeze(-1)
    # A Hermitian matrix stands for a real metric of twice its size.
    return 2 * (step * image).sum(-1).real if hermitian else (step * image).sum(-1)


def _line(start: Tensor, end: Tensor, num_points: int) -> Tensor:
    t = (torch.arange(num_points).to(start.real) / (num_points - 1)).unsqueeze(-1)
    return start.unsqueeze(-2) * (1 - t) + end.unsqueeze(-2) * t


def _sines(num_points: int, num_modes: int, like: Tensor) -> Tensor:
    """Return sines of unit energy in a flat space, at the points of a broken line."""
    i = torch.arange(num_points).to(like.real).unsqueeze(-1)
    k = torch.arange(1, num_modes + 1).to(like.real)
    return (math.pi * k * i / (num_points - 1)).sin() * math.sqrt(2) / (math.pi * k)


def _relaxed(
    metric: Metric, line: Tensor, waves: Tensor, max_steps: int, tol: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the points of least energy near one line, the residual, and the number of steps."""
    view = join_parts if line.is_complex() else torch.as_tensor
    width = (2 if line.is_complex() else 1) * line.shape[-1]
    modes = waves.new_zeros(waves.shape[-1], width, requires_grad=True)
    with torch.no_grad():
        # So that the tolerance has no unit. Ends may coincide.
        least = math.sqrt(torch.finfo(waves.dtype).tiny)
        scale = curve_energy(metric, line).clamp(min=least)

    def closure() -> Tensor:
        energy = curve_energy(metric, line + view(waves @ modes)) / scale
        # Not by backward, which would leave gradients in the decoder of a metric.
        (modes.grad,) = torch.autograd.grad(energy, modes)
        return energy.detach()

    optimiser = torch.optim.LBFGS(
        [modes],
        max_iter=max_steps,
        max_eval=2 * max_steps,
        tolerance_grad=tol / 10,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )
    with torch.enable_grad():
        optimiser.step(closure)
        energy, slope = closure(), modes.grad
    assert slope is not None
    steps = torch.tensor(optimiser.state[modes]["n_iter"], device=line.device)
    with torch.no_grad():
        residual = slope.abs().max() / energy.clamp(min=least)
        return line + view(waves @ modes), residual, steps
