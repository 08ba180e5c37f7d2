"""Normalising flows on tori and cylinders: splines of some coordinates given the others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_manifolds.distributions import Concatenated, ManifoldUniform, NormalizingFlow
from pyro_manifolds.manifolds import Circle, Cylinder, Manifold, Torus
from pyro_manifolds.ops.angles import wrap
from pyro_manifolds.ops.splines import rational_quadratic, rational_quadratic_inverse, spline_of

__all__ = ["CylinderFlow", "SplineFlow", "TorusFlow"]


class _Axis(NamedTuple):
    """One kind of coordinate: a circle, an interval, or a line.

    Attributes:
        bound: End of the interval on which the spline bends.
        periodic: Whether the ends of the interval are one point.
        scaled: Whether the coordinate is shifted and scaled before the spline.
    """

    bound: float
    periodic: bool = False
    scaled: bool = False

    def sizes(self, bins: int) -> list[int]:
        """Count the numbers behind widths, heights, slopes, shift and scale."""
        moves = self.periodic or self.scaled
        return [bins, bins, bins + (not self.periodic), int(moves), int(self.scaled)]

    def features(self, x: Tensor) -> Tensor:
        """Return what networks read of coordinates: the same for all that denote one point."""
        if self.periodic:
            return torch.cat([x.cos(), x.sin()], -1)
        return x / (1 + x.square()).sqrt() if self.scaled else x / self.bound


_CIRCLE = _Axis(math.pi, periodic=True)
_LINE = _Axis(4.0, scaled=True)  # four standard deviations of the base
_MAX_LOG_SCALE = 5.0


class _Conditioner(nn.Module):
    """Network that starts as zero, and reads a context once for all the points that share it."""

    def __init__(self, features: int, context: int, hidden: Sequence[int], out: int) -> None:
        super().__init__()
        self.of_features = nn.Linear(features, hidden[0])
        self.of_context = nn.Linear(context, hidden[0], bias=False) if context else None
        layers: list[nn.Module] = [nn.SiLU()]
        for size_in, size_out in itertools.pairwise(hidden):
            layers += [nn.Linear(size_in, size_out), nn.SiLU()]
        last = nn.Linear(hidden[-1], out)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.rest = nn.Sequential(*layers, last)

    def forward(self, features: Tensor, context: Tensor | None) -> Tensor:
        hidden = self.of_features(features)
        if self.of_context is not None:
            hidden = hidden + self.of_context(context)
        return self.rest(hidden)


class _Coupling(nn.Module):
    """Bijection that moves every other coordinate by a spline that depends on the rest.

    Args:
        axes: Kinds of the coordinates of even and of odd number.
        dim: Number of coordinates.
        parity: Whether those of even (0) or of odd (1) number are moved.
        context: Number of entries of the context.
        bins: Number of bins of a spline.
        hidden: Widths of the hidden layers.
    """

    order: Tensor

    def __init__(
        self,
        axes: tuple[_Axis, _Axis],
        dim: int,
        parity: int,
        context: int,
        bins: int,
        hidden: Sequence[int],
    ) -> None:
        super().__init__()
        self.axis, self.kept_axis = axes[parity], axes[1 - parity]
        self.moved, self.kept = slice(parity, None, 2), slice(1 - parity, None, 2)
        moved, kept = range(dim)[self.moved], range(dim)[self.kept]
        order = torch.tensor([*kept, *moved]).argsort()
        self.register_buffer("order", order, persistent=False)
        self.sizes = self.axis.sizes(bins)
        features = len(kept) * (1 + self.kept_axis.periodic)
        self.has_features = features > 0
        self.conditioner = _Conditioner(
            features or 1, context, hidden, len(moved) * sum(self.sizes)
        )

    def forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the image, and the logarithm of the factor by which volume grows."""
        widths, heights, slopes, shift, log_scale = self._numbers(x, context)
        u = x[..., self.moved] - shift
        u = wrap(u) if self.axis.periodic else u * (-log_scale).exp()
        spline = spline_of(widths, heights, slopes, self.axis.bound)
        z, log_slope = rational_quadratic(u, spline)
        return self._join(x, z), (log_slope - log_scale).sum(-1)

    def inverse(self, z: Tensor, context: Tensor | None) -> Tensor:
        """Return the point whose image is ``z``."""
        widths, heights, slopes, shift, log_scale = self._numbers(z, context)
        u = z[..., self.moved]
        u = wrap(u) if self.axis.periodic else u
        spline = spline_of(widths, heights, slopes, self.axis.bound)
        x = rational_quadratic_inverse(u, spline) * log_scale.exp() + shift
        return self._join(z, wrap(x) if self.axis.periodic else x)

    def _numbers(self, x: Tensor, context: Tensor | None) -> list[Tensor]:
        """Return what moves the moved coordinates: functions of the kept ones alone."""
        kept = x[..., self.kept]
        features = self.kept_axis.features(kept) if self.has_features else torch.ones_like(x)
        numbers = self.conditioner(features, context).unflatten(-1, (-1, sum(self.sizes)))
        *knots, shift, log_scale = numbers.split(self.sizes, -1)
        log_scale = _MAX_LOG_SCALE * (log_scale / _MAX_LOG_SCALE).tanh()
        return [*knots, shift.sum(-1), log_scale.sum(-1)]  # one number each, or none: zero

    def _join(self, x: Tensor, moved: Tensor) -> Tensor:
        """Return the point with the kept coordinates of ``x`` and new ones for the moved."""
        kept = x[..., self.kept]
        kept = kept.expand(moved.shape[:-1] + kept.shape[-1:])
        return torch.cat([kept, moved], -1)[..., self.order]


class SplineFlow(nn.Module):
    """What :class:`TorusFlow` and :class:`CylinderFlow` share; build one of those."""

    def __init__(
        self,
        manifold: Manifold,
        axes: tuple[_Axis, _Axis],
        context: int,
        layers: int,
        bins: int,
        hidden_features: Sequence[int],
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("context", context, 0),
            ("layers", layers, 1),
            ("bins", bins, 2),
            ("len(hidden_features)", len(hidden_features), 1),
        ):
            if value < least:
                raise ValueError(
                    f"{type(self).__name__}: expected {name} of at least {least}, got {value}"
                )
        self.manifold = manifold
        self.context = context
        parities = [i % min(manifold.dim, 2) for i in range(layers)]
        self.layers = nn.ModuleList(
            _Coupling(axes, manifold.dim, parity, context, bins, hidden_features)
            for parity in parities
        )

    def forward(
        self,
        context: Tensor | None = None,
        *,
        base_dist: Distribution | None = None,
        validate_args: bool | None = None,
    ) -> NormalizingFlow:
        """Return the distribution, one for each row of the context.

        Args:
            context: Shape ``batch_shape + (context,)``; none if the flow has no context.
            base_dist: Distribution on the manifold that the flow moves.
            validate_args: Whether to check arguments and values of the distribution.

        Raises:
            ValueError: If the context is missing, unasked for or of a wrong size.
        """
        given = 0 if context is None else context.shape[-1] if context.dim() else 1
        if given != self.context or (context is not None and not self.context):
            expected = f"shape (..., {self.context})" if self.context else "None"
            got = "None" if context is None else f"shape {tuple(context.shape)}"
            raise ValueError(f"{type(self).__name__}: expected context of {expected}, got {got}")
        if base_dist is None:
            base_dist = self._default_base()
        layers = cast("list[_Coupling]", list(self.layers))
        return NormalizingFlow(
            base_dist, layers, self.manifold, context, validate_args=validate_args
        )

    def _default_base(self) -> Distribution:
        like = next(self.parameters())
        return ManifoldUniform(
            self.manifold, dtype=like.dtype, device=like.device, validate_args=False
        )


class TorusFlow(SplineFlow):
    r"""Normalising flow on the torus, by circular splines: a density that a network shapes.

    Each layer moves every other angle by a rotation and a monotone rational-quadratic spline of
    the circle. Their parameters are functions of cosines and sines of the other angles, and the
    slopes of splines agree where the circle closes, so that the density is positive and continuous
    on the torus, with kinks at the knots of the splines: no seam shows. Untrained, it is the base:
    uniform unless another is given. That maps of this kind turn into the identity by degrees
    excludes no density (Moser, 1965).

    Push the distribution that it returns to quotients of the torus:
    ``CoveringPushforward(flow(), KleinBottle().orientation_covering)`` is a flow on the Klein
    bottle, with one pass for each of the two sheets. A guide calls ``flow(features, ...)`` with
    the features of an encoder as context.

    References:
        | Normalizing Flows on Tori and Spheres (Rezende et al., 2020), arXiv 2002.02428
        | Neural Spline Flows (Durkan et al., 2019), arXiv 1906.04032
        | On the Volume Elements on a Manifold (Moser, 1965)

    Args:
        dim: Number of angles.
        context: Number of entries of the context, if the density depends on one.
        layers: Number of layers.
        bins: Number of bins of a spline.
        hidden_features: Widths of the hidden layers of a network.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> from pyro_manifolds.nn import TorusFlow
        >>> flow = TorusFlow(2, context=3)
        >>> d = flow(torch.zeros(5, 3))
        >>> d.batch_shape, d.event_shape
        (torch.Size([5]), torch.Size([2]))
        >>> klein = CoveringPushforward(d, KleinBottle().orientation_covering)
        >>> klein.log_prob(torch.zeros(2)).detach()  # uniform until trained
        tensor([-2.9826, -2.9826, -2.9826, -2.9826, -2.9826])
    """

    def __init__(
        self,
        dim: int,
        context: int = 0,
        *,
        layers: int = 6,
        bins: int = 8,
        hidden_features: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__(Torus(dim), (_CIRCLE, _CIRCLE), context, layers, bins, hidden_features)


class CylinderFlow(SplineFlow):
    r"""Normalising flow on the cylinder, to be pushed to the Moebius band.

    As :class:`TorusFlow`, with splines of the interval for heights between two edges, where the
    density stays positive and finite, and with affine maps and splines with straight ends for
    heights on the line. Untrained, the height is uniform between the edges, or standard normal.

    ``CoveringPushforward(flow(), MoebiusBand(half_width).orientation_covering)`` is a flow on the
    band.

    Args:
        half_width: Half-width of the cylinder; ``math.inf`` is allowed.
        context: Number of entries of the context, if the density depends on one.
        layers: Number of layers, which move heights and angles in turn.
        bins: Number of bins of a spline.
        hidden_features: Widths of the hidden layers of a network.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> from pyro_manifolds.nn import CylinderFlow
        >>> d = CylinderFlow(0.5)()
        >>> band = CoveringPushforward(d, MoebiusBand(0.5).orientation_covering)
        >>> band.log_prob(torch.zeros(2)).detach()  # minus the logarithm of the area, pi
        tensor(-1.1447)
    """

    def __init__(
        self,
        half_width: float = 1.0,
        context: int = 0,
        *,
        layers: int = 6,
        bins: int = 8,
        hidden_features: Sequence[int] = (64, 64),
    ) -> None:
        height = _Axis(half_width) if math.isfinite(half_width) else _LINE
        manifold = Cylinder(half_width)
        super().__init__(manifold, (_CIRCLE, height), context, layers, bins, hidden_features)

    def _default_base(self) -> Distribution:
        if self.manifold.is_compact:
            return super()._default_base()
        like = next(self.parameters())
        angle = ManifoldUniform(
            Circle(), dtype=like.dtype, device=like.device, validate_args=False
        )
        height = dist.Normal(like.new_zeros(()), like.new_ones(()), validate_args=False)
        return Concatenated(angle, height, validate_args=False)
