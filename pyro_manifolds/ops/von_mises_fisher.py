r"""Von Mises-Fisher law: draws of the height above the equator, and their pathwise gradient.

Of a point x of the unit sphere of :math:`\mathbb{R}^d` only the height :math:`t = \mu \cdot x` is
distributed otherwise than uniformly. It is handled as the shares :math:`(1 - t) / 2` and
:math:`(1 + t) / 2`, which keep their relative precision at both poles.

References:
    | Simulation of the von Mises Fisher distribution (Wood, 1994)
    | Implicit Reparameterization Gradients (Figurnov, Mohamed and Mnih, 2018)
    | https://arxiv.org/abs/1805.08498
"""

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_manifolds.ops.bessel_ratio import bessel_ratios
from pyro_manifolds.ops.blocks import blockwise
from pyro_manifolds.ops.function import apply

__all__ = ["draw_shares", "implicit_gradient"]

# Proposals tried at once, at least, over all elements that still wait for one.
_LEAST_PROPOSALS = 64
# Nodes and weights of Gauss and Legendre, and the fall of the log-density beyond which nothing is
# integrated, for float64 and for float32.
_FINE = (*np.polynomial.legendre.leggauss(24), 48.0)
_COARSE = (*np.polynomial.legendre.leggauss(12), 24.0)


def draw_shares(concentration: Tensor, ambient_dim: int) -> tuple[Tensor, Tensor]:
    r"""Draw :math:`(1 - t) / 2` and :math:`(1 + t) / 2`, with their pathwise gradient.

    Draws are exact, by inversion in space, where :math:`d = 3`, and by rejection elsewhere. Their
    gradient is :func:`implicit_gradient`, not the biased one through the accepted proposal. Both
    shares are positive. A concentration of NaN gives NaN.

    Args:
        concentration: Concentrations :math:`\kappa \ge 0`, of any shape.
        ambient_dim: Dimension :math:`d \ge 2` of the space that the sphere lies in.

    Example:
        >>> near, far = draw_shares(torch.tensor([0.0, 1e8]), 5)
        >>> near + far
        tensor([1., 1.])
    """
    # Drawn here, the first proposals heed what vmap is told about randomness.
    size = (1 if ambient_dim == 3 else 3, *concentration.shape)
    uniform = torch.rand(size, dtype=torch.float64, device=concentration.device)
    # torch.jit.trace makes a tensor of the size of a dimension.
    return apply(_Shares, concentration, uniform, int(ambient_dim))


class _Shares(torch.autograd.Function):
    """Draws from uniform numbers; the loop of the rejection sampler is hidden from vmap."""

    @staticmethod
    def forward(concentration: Tensor, uniform: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        kappa, tiny = concentration.double().reshape(-1), torch.finfo(concentration.dtype).tiny
        uniform = uniform.reshape(len(uniform), -1)
        near = _by_inversion(kappa, uniform) if dim == 3 else _by_rejection(kappa, uniform, dim)
        near, far = (
            share.clamp(min=tiny).to(concentration.dtype).reshape(concentration.shape)
            for share in (near, 1.0 - near)
        )
        return near, far

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Any) -> None:
        concentration, _, ctx.dim = inputs
        ctx.save_for_backward(*output, concentration)
        ctx.save_for_forward(*output, concentration)

    @staticmethod
    def backward(ctx: Any, near: Tensor, far: Tensor) -> tuple[Tensor, None, None]:
        return (near - far) * _of_saved(ctx), None, None

    @staticmethod
    def jvp(ctx: Any, concentration: Tensor, *others: None) -> tuple[Tensor, Tensor]:
        change = concentration * _of_saved(ctx)
        return change, -change

    @staticmethod
    def vmap(info: Any, in_dims: Any, concentration: Tensor, uniform: Tensor, dim: int) -> Any:
        def batch_first(x: Tensor, at: int | None) -> Tensor:
            return x.expand(info.batch_size, *x.shape) if at is None else x.movedim(at, 0)

        concentration = batch_first(concentration, in_dims[0])
        uniform = batch_first(uniform, in_dims[1]).movedim(0, 1)
        return _Shares.apply(concentration, uniform, dim), (0, 0)


def _of_saved(ctx: Any) -> Tensor:
    near, far, concentration = ctx.saved_tensors
    return implicit_gradient(near, far, concentration, ctx.dim)


def _by_inversion(kappa: Tensor, uniform: Tensor) -> Tensor:
    twice = 2.0 * kappa.clamp(min=1e-30)
    return -(uniform[0] * torch.expm1(-twice)).log1p() / twice


def _by_rejection(kappa: Tensor, uniform: Tensor, dim: int) -> Tensor:
    # The envelope is an image of the uniform law under a Moebius map, which multiplies the odds of
    # the shares by b. What is accepted depends on the height before the map and on the speed
    # (1 - b) / (1 + b) only, in a form that rounds well at any concentration.
    m = dim - 1.0
    b = m / (2.0 * kappa + (4.0 * kappa.square() + m * m).sqrt())
    speed = (1.0 - b) / (1.0 + b)
    depth, accepted = _propose(speed, uniform, dim)
    waiting = (~accepted).nonzero().squeeze(-1)
    while len(waiting):
        tries = max(len(kappa), _LEAST_PROPOSALS) // len(waiting)
        more = uniform.new_empty(3, tries, len(waiting)).uniform_()
        depths, accepted = _propose(speed[waiting], more, dim)
        found, first = accepted.max(0)
        depth[waiting] = depths.gather(0, first.unsqueeze(0)).squeeze(0)
        waiting = waiting[~found]
    near = b * depth
    return near / (near + (2.0 - depth))


def _propose(speed: Tensor, uniform: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return 1 - s for the heights s of uniform points of the sphere, and which to accept."""
    # In a plane through the axis, a uniform point has a radius of a known law and any angle.
    radius, angle, level = uniform.unbind(0)
    outside = radius.pow(2 / (dim - 2) if dim > 2 else math.inf)
    radius = (1.0 - outside).sqrt()
    depth = outside / (1.0 + radius) + 2.0 * radius * (0.5 * math.pi * angle).sin().square()
    shift = speed * (1.0 - depth)
    log_ratio = (dim - 1.0) * (shift / (1.0 + shift) - shift.log1p())
    # Negated, so that NaN is accepted: the search ends.
    return depth, ~(log_ratio < level.log())


def implicit_gradient(
    near: Tensor, far: Tensor, concentration: Tensor, ambient_dim: int
) -> Tensor:
    r"""Return the derivative of the share ``near`` by the concentration, at a fixed quantile.

    That is minus the derivative of the distribution function with respect to :math:`\kappa`,
    divided by the density. In space it is closed. Elsewhere it is integrated, by a Gauss-Legendre
    rule, over the side of the angle on which the integrand keeps its sign, so that nothing
    cancels: its relative error is 1e-13, and in float32 that of rounded shares.

    Args:
        near: Shares :math:`(1 - t) / 2`.
        far: Shares :math:`(1 + t) / 2`.
        concentration: Concentrations :math:`\kappa \ge 0`. All shapes broadcast.
        ambient_dim: Dimension :math:`d \ge 2` of the space that the sphere lies in.

    Example:
        >>> half = torch.tensor(0.5)
        >>> implicit_gradient(half, half, torch.tensor([0.0, 1.0, 10.0]), 3)
        tensor([-0.2500, -0.2311, -0.0500])
    """
    dtype, shares = concentration.dtype, (near.double(), far.double())
    if ambient_dim == 3:
        return _gradient_in_space(*shares, concentration.double()).to(dtype)
    rule = _FINE if dtype == torch.float64 else _COARSE
    kernel = partial(_gradient, dim=ambient_dim, rule=rule)
    variance = bessel_ratios(concentration, ambient_dim, slope=torch.is_grad_enabled())[3]
    arguments = (*shares, concentration.double(), variance)
    return blockwise(kernel, *arguments, block=2000)[0].to(dtype)


def _gradient_in_space(near: Tensor, far: Tensor, kappa: Tensor) -> Tensor:
    # From the distribution function, which is the quotient of 1 - e^(-x near) and 1 - e^(-x) with
    # x = 2 kappa; by a power series in x (differences of Bernoulli polynomials of near) where the
    # closed form cancels.
    least = 0.02
    x = 2.0 * kappa
    k = x.clamp(min=least)
    whole = torch.expm1(-k)
    below = torch.expm1(-k * near) / whole * (-k * far).exp() - near
    above = far - torch.expm1(-k * far) / whole
    direct = 2.0 / k * torch.where(near < far, below, above)
    y, h = near * far, 0.5 * (near - far)
    fourth = h * (y + 1 / 3) / 60.0 - x * y * (y + 0.5) / 360.0
    series = -y * (1.0 + x * (h / 3.0 - x * (y / 12.0 + x * fourth)))
    return torch.where(x < least, series, direct)


def _gradient(
    near: Tensor, far: Tensor, kappa: Tensor, variance: Tensor, dim: int, rule: Any
) -> tuple[Tensor]:
    nodes, weights = (
        near.new_tensor(x.tolist()).reshape((-1,) + (1,) * near.dim()) for x in rule[:2]
    )
    m, gap = dim - 2.0, torch.sub(variance, near, alpha=2.0)
    cosine, sine = far - near, 2.0 * (near * far).sqrt()
    width = _reach(near, far, kappa, gap, m, rule[2])

    # At a distance of 4 atan(t) from the angle, the half of it has rational sine and cosine.
    t = width * (0.5 + 0.5 * nodes)
    u = 2.0 * (1.0 + t.square()).reciprocal()
    half_sine, half_cosine = t * u, u - 1.0
    chord = 2.0 * half_sine
    drop = chord * (cosine * half_sine + sine * half_cosine)  # of the height
    log_density = -kappa * drop
    if m:
        rise = chord * (cosine / sine * half_cosine - half_sine)  # of the sine, relatively
        log_density = log_density + m * rise.log1p()
    total = (weights * log_density.exp() * (gap - drop) * u).sum(0)
    return (0.5 * sine * width * total,)


def _reach(near: Tensor, far: Tensor, kappa: Tensor, gap: Tensor, m: float, fall: float) -> Tensor:
    """Return the tangent of a quarter of the signed distance to integrate over."""
    sign = torch.where(gap > 0, -1.0, 1.0)
    # Up to the pole on that side, a limit that moves with the angle ...
    a, b = near.sqrt(), far.sqrt()
    pole = torch.where(sign < 0, a / (1.0 + b), b / (1.0 + a))
    # ... or where nothing is left: the root of slope x + bend x^2 / 2 = fall, taken for twice the
    # sine of half the distance.
    near, far, kappa = near.detach(), far.detach(), kappa.detach()
    cosine, sine2 = far - near, 4.0 * near * far
    sine = sine2.sqrt()
    slope = sign * (kappa * sine - m * cosine / sine)
    bend = (kappa * cosine + m / sine2).clamp(min=0.0)
    root = slope + (slope.square() + 2.0 * fall * bend).sqrt()
    half = (fall / root.clamp(min=1e-100)).clamp(max=1.0)
    quarter = half / (1.0 + (1.0 - half.square()).sqrt())
    return sign * torch.minimum(quarter, pole)
