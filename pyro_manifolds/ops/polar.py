r"""Points of a sphere in polar coordinates around a location.

A height :math:`t = \mu \cdot x` comes as the two shares :math:`(1 - t) / 2` and
:math:`(1 + t) / 2`, which keep their relative precision at both poles, up to a factor common to
both. The derivatives of points by the location are those of the rotation that moves it: for
the laws that are symmetric around it, gradients of expectations are unbiased, and without the
variance that a projection of the noise to another tangent space would add.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_manifolds.ops.function import apply

__all__ = ["log_far_share", "normal_polar_point", "polar_point"]

# From this dimension on no normal vector that will ever be drawn is so nearly parallel to another
# that its tangential part is rounding: one in 1e14 is within 0.01 of it.
_SAFE_DIM = 8


def polar_point(loc: Tensor, near: Tensor, far: Tensor, direction: Tensor) -> Tensor:
    r"""Return the unit vector at a given height above the equator of ``loc``, in a direction.

    Args:
        loc: Unit vectors :math:`\mu`, ``[..., d]``.
        near: Share :math:`(1 - t) / 2`, ``[...]``, zero at the location.
        far: Share :math:`(1 + t) / 2`, ``[...]``; a factor common to both is divided out.
        direction: Vectors ``[..., d]`` that are projected to the tangent space at ``loc``; they
            turn with it, and get no gradient themselves.

    Example:
        >>> loc, direction = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([5.0, 0.0, 2.0])
        >>> polar_point(loc, torch.tensor(0.5), torch.tensor(0.5), direction)
        tensor([0.0000, 0.0000, 1.0000])
    """
    if not loc.shape[:-1] == direction.shape[:-1] == near.shape == far.shape:
        batch = torch.broadcast_shapes(loc.shape[:-1], direction.shape[:-1], near.shape, far.shape)
        loc, direction = (x.expand(batch + x.shape[-1:]) for x in (loc, direction))
        near, far = near.expand(batch), far.expand(batch)
    return apply(_PolarPoint, loc, near, far, direction)[0]


def normal_polar_point(loc: Tensor, far: Tensor, normal: Tensor) -> Tensor:
    r"""Return the unit vector whose share ``near`` is half the square of a tangential normal.

    The length of a normal vector that is projected to the tangent space is independent of its
    direction, and half its square a gamma variable of shape :math:`(d - 1) / 2`: no second draw
    is needed for it. It is the stereographic projection, from :math:`-\mu`, of the tangential part
    over :math:`\sqrt{2 \text{far}}`, without a division that could lose precision.

    Args:
        loc: Unit vectors :math:`\mu`, ``[..., d]``.
        far: Positive numbers, ``[...]``.
        normal: Standard normal vectors, of the shape of the result, ``[..., d]``.

    Example:
        >>> loc, normal = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([5.0, 0.0, 2.0])
        >>> normal_polar_point(loc, torch.tensor(2.0), normal)
        tensor([0., 0., 1.])
    """
    if loc.shape != normal.shape:
        loc = loc.expand(normal.shape)
    return apply(_NormalPolarPoint, loc, far.expand(normal.shape[:-1]), normal)[0]


def log_far_share(loc: Tensor, value: Tensor) -> Tensor:
    r"""Return :math:`\log((1 + \mu \cdot x) / 2)`, precise at both poles.

    At a distance from the antipode of twice the resolution of the dtype it reaches a floor.

    Args:
        loc: Unit vectors :math:`\mu`, ``[..., d]``.
        value: Unit vectors x, ``[..., d]``.

    Example:
        >>> log_far_share(torch.tensor([1.0, 0.0]), torch.tensor([0.6, 0.8])).exp()
        tensor(0.8000)
    """
    if loc.shape != value.shape:
        loc, value = torch.broadcast_tensors(loc, value)
    return apply(_LogFarShare, loc, value)[0]


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return torch.linalg.vecdot(x, y).unsqueeze(-1)


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True)


def _tiny(x: Tensor) -> float:
    return torch.finfo(x.dtype).tiny


def _eps(x: Tensor) -> float:
    return torch.finfo(x.dtype).eps


def _tangent(x: Tensor, loc: Tensor) -> tuple[Tensor, Tensor]:
    """Return the part of x tangential at loc up to rounding, and one over the norm of loc."""
    inverse = _norm(loc).reciprocal()
    return torch.addcmul(x, loc, _dot(x, loc) * (inverse * inverse), value=-1), inverse


def _rest(tangent: Tensor, loc: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """Return the multiple of loc still in the tangent, and the square of what is the length then.

    What rounding leaves counts where a vector was nearly parallel to the location. It is taken
    out of the coefficients of loc, which is cheaper than another vector.
    """
    rest = _dot(tangent, loc) * inverse
    length = (_norm(tangent).square() - rest.square()).clamp(min=_tiny(rest))
    return rest * inverse, length


def _turn(grad: Tensor, radial: Tensor, height: Tensor, point: Tensor) -> Tensor:
    """Return the gradient by the location of points that turn with it."""
    return torch.addcmul(grad * height, point, radial, value=-1)


class _PolarPoint(torch.autograd.Function):
    """The point, and the tangential part of the direction, in few passes over long vectors.

    Both are outputs so that backward, which needs them, can itself be differentiated.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(loc: Tensor, near: Tensor, far: Tensor, direction: Tensor) -> tuple[Tensor, ...]:
        near, far = near.unsqueeze(-1), far.unsqueeze(-1)
        tangent, inverse = _tangent(direction, loc)
        rest, length = _rest(tangent, loc, inverse)
        total = near + far
        across = 2 * (near.sqrt() * far.sqrt()) / (length.sqrt() * total)
        height = (far - near) / total
        point = torch.addcmul(loc * (height * inverse - across * rest), tangent, across)
        return point, tangent, length, rest

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[2:])
        ctx.save_for_backward(*inputs[:3], *output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_tangent: Tensor | None, *_: None) -> Any:
        loc, near, far, point, tangent, length, rest = ctx.saved_tensors
        by_loc, by_near, by_far = None, None, None
        if grad is not None:
            near, far = (x.unsqueeze(-1).clamp(min=_tiny(x)) for x in (near, far))
            total = near + far
            height, radial = (far - near) / total, _dot(grad, loc)
            if ctx.needs_input_grad[0]:
                by_loc = _turn(grad, radial, height, point)
            # The derivative by the angle is cos * (unit tangent) - sin * loc, that of the angle
            # sin / 2 * (d near / near - d far / far). Nothing cancels near the poles.
            along = height * (_dot(grad, tangent) - rest * radial) * length.rsqrt()
            ratio = (near / far).sqrt()
            if ctx.needs_input_grad[1]:
                by_near = ((along / ratio - 2 * far / total * radial) / total).squeeze(-1)
            if ctx.needs_input_grad[2]:
                by_far = ((2 * near / total * radial - along * ratio) / total).squeeze(-1)
        if grad_tangent is not None and ctx.needs_input_grad[0]:
            turned = -_dot(grad_tangent, loc) * tangent
            by_loc = turned if by_loc is None else by_loc + turned
        return by_loc, by_near, by_far, None


class _NormalPolarPoint(torch.autograd.Function):
    """The same with near = length^2 / 2 of the tangent, where much falls out."""

    generate_vmap_rule = True

    @staticmethod
    def forward(loc: Tensor, far: Tensor, normal: Tensor) -> tuple[Tensor, ...]:
        far = far.unsqueeze(-1)
        tangent, inverse = _tangent(normal, loc)
        if normal.shape[-1] < _SAFE_DIM:
            rest, length = _rest(tangent, loc, inverse)
        else:
            rest, length = inverse, _norm(tangent).square()  # no rest is used
        total = torch.add(far, length, alpha=0.5)
        across = (2 * far).sqrt() / total
        along = (1 - length / total) * inverse
        if normal.shape[-1] < _SAFE_DIM:
            along = along - across * rest
        return torch.addcmul(loc * along, tangent, across), tangent, length, rest

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[2:])
        ctx.save_for_backward(*inputs[:2], *output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_tangent: Tensor | None, *_: None) -> Any:
        loc, far, point, tangent, length, rest = ctx.saved_tensors
        by_loc, by_far = None, None
        if grad is not None:
            far, radial = far.unsqueeze(-1), _dot(grad, loc)
            total = torch.add(far, length, alpha=0.5)
            depth = length / total  # 1 - height, which near the location is not a difference
            height = 1 - depth
            if ctx.needs_input_grad[0]:
                by_loc = _turn(grad, radial, height, point)
            if ctx.needs_input_grad[1]:
                across = _dot(grad, tangent)
                if tangent.shape[-1] < _SAFE_DIM:
                    across = across - rest * radial
                slope = depth * radial - height * across * (2 * far).rsqrt()
                by_far = (slope / total).squeeze(-1)
        if grad_tangent is not None and ctx.needs_input_grad[0]:
            turned = -_dot(grad_tangent, loc) * tangent
            by_loc = turned if by_loc is None else by_loc + turned
        return by_loc, by_far, None


class _LogFarShare(torch.autograd.Function):
    """The logarithm and, for backward, the ratio near / far and the difference of the points.

    The derivative supposes unit vectors, of which near + far is one.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(loc: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        apart = value - loc
        ratio = (_norm(apart) / _norm(value + loc).clamp(min=2 * _eps(loc))).square()
        return -ratio.log1p().squeeze(-1), ratio, apart

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(inputs[0], *output[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, grad_ratio: Tensor | None, grad_apart: Tensor | None
    ) -> Any:
        loc, ratio, apart = ctx.saved_tensors
        by_loc, by_value = None, None
        slope = None
        if grad is not None:
            at_floor = ratio > 0.9 / _eps(ratio) ** 2
            slope = (-0.5 * grad.unsqueeze(-1)).masked_fill(at_floor, 0)
        if grad_ratio is not None:
            rise = 0.5 * grad_ratio * (1 + ratio)
            slope = rise if slope is None else slope + rise
        if slope is not None:
            # With along = value + loc = apart + 2 loc, the gradients are
            # slope * (+-apart - ratio * along), plus by the value and minus by the location.
            twist = slope * ratio
            radial = loc * (-2 * twist)
            by_value = torch.addcmul(radial, apart, slope - twist)
            if ctx.needs_input_grad[0]:
                by_loc = torch.addcmul(radial, apart, -slope - twist)
        if grad_apart is not None:
            by_value = grad_apart if by_value is None else by_value + grad_apart
            by_loc = -grad_apart if by_loc is None else by_loc - grad_apart
        return by_loc, by_value
