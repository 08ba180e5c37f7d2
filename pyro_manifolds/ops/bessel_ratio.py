r"""Ratios of modified Bessel functions: normaliser and moments of the von Mises-Fisher law.

For :math:`t = \mu \cdot x` with x uniform on the unit sphere of :math:`\mathbb{R}^d`, and
:math:`\nu = d / 2 - 1`, the normaliser is :math:`g(\kappa) = \log E\, e^{\kappa t} = \log
[\Gamma(\nu + 1) (2 / \kappa)^\nu I_\nu(\kappa)]`, and its derivative the mean resultant length
:math:`A = I_{\nu + 1} / I_\nu`. The Bessel functions themselves leave the range of floating point
and are never formed: Debye's uniform expansion serves at an order that is large enough for it, and
the recurrence of the ratios leads down to :math:`\nu`. That is a fixed number of elementwise
operations in float64, in any dimension at any concentration; results return in the dtype that
came in, and have derivatives of every order.

References:
    | NIST Handbook of Mathematical Functions (Olver, Lozier, Boisvert and Clark, 2010), 10.41
"""

import math
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_manifolds.ops.blocks import blockwise
from pyro_manifolds.ops.function import apply

__all__ = [
    "bessel_ratios",
    "log_normalizer",
    "mean_resultant",
    "resultant_slope",
    "scaled_log_normalizer",
    "spherical_variance",
]

Polynomial = list[Fraction]

# Terms of the expansion, and the order from which it is used: the higher for float64. Against
# mpmath, for d from 2 to 1024 and concentrations from 1e-6 to 1e8, the relative error of each
# function below is 1e-14 (resultant_slope: 5e-14) there, and 1e-8 where float32 came in.
_TERMS = 12
_LEAST_ORDER, _LEAST_ORDER_FLOAT32 = 18, 7


def _product(a: Polynomial, b: Polynomial) -> Polynomial:
    total = [Fraction(0)] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            if x and y:
                total[i + j] += x * y
    return total


def _sum(*polynomials: Polynomial) -> Polynomial:
    total = [Fraction(0)] * max(map(len, polynomials))
    for polynomial in polynomials:
        for j, x in enumerate(polynomial):
            total[j] += x
    return total


def _derivative(a: Polynomial) -> Polynomial:
    return [j * x for j, x in enumerate(a)][1:]


def _debye_slopes(terms: int) -> list[Polynomial]:
    """Return D_k' for k >= 1, where Debye's series is the exponential of sum D_k(p) / order^k.

    The recurrence of the terms of the series becomes a Riccati equation for D'.
    """
    drift = [Fraction(c) for c in (0, 1, 0, -2)]
    spread = [Fraction(c, 2) for c in (0, 0, 1, 0, -1)]
    slopes = [[Fraction(c, 8) for c in (1, 0, -5)]]
    while len(slopes) < terms:
        pairs = zip(slopes[:-1], slopes[-2::-1], strict=True)
        squares = [_product(a, b) for a, b in pairs]
        bend = _sum(_derivative(slopes[-1]), *squares)
        slopes.append(_sum(_product(drift, slopes[-1]), _product(spread, bend)))
    return slopes


def _debye_table() -> Tensor:
    """Return the coefficients in p of three functions, for each power of 1 / order (the last).

    They are (D(p) - D(1)) / (p - 1), D'(p) and D''(p).
    """
    columns = []
    for slope in _debye_slopes(_TERMS):
        integral = [x / j for j, x in enumerate(slope, 1)]
        quotient = [sum(integral[j:], Fraction(0)) for j in range(len(integral))]
        columns.append(
            [
                [float(x) for x in f] + [0.0] * (3 * _TERMS - len(f))
                for f in (quotient, slope, _derivative(slope))
            ]
        )
    return torch.tensor(columns, dtype=torch.float64, device="cpu").permute(1, 2, 0).contiguous()


_TABLE = _debye_table()


def _orders(dtype: torch.dtype, dim: int) -> tuple[int, float]:
    """Return the number of steps from the order of the expansion, and that order."""
    nu = 0.5 * dim - 1.0
    least = _LEAST_ORDER if dtype == torch.float64 else _LEAST_ORDER_FLOAT32
    steps = max(0, math.ceil(least - nu))
    return steps, nu + steps


def _coefficients(kappa: Tensor, dim: int) -> Tensor:
    """Return the table at the order of the expansion, for the arguments of :func:`_evaluate`.

    An input of its own: torch.jit.trace refuses two functions that meet one tensor otherwise.
    """
    order = _orders(kappa.dtype, dim)[1]
    powers = _TABLE.new_tensor([order**-k for k in range(1, _TERMS + 1)])
    return (_TABLE @ powers).to(kappa.device)


# Below, numbers that meet tensors are floats: an integer costs torch half an operation more.


def _evaluate(kappa: Tensor, table: Tensor, dim: int, slope: bool) -> tuple[Tensor, ...]:
    """Return g, kappa - g, A, 1 - A and, with ``slope``, A' in float64.

    Each is precise relative to its value, as far as the dtype that came in asks for.
    """
    x, (steps, order) = kappa.double(), _orders(kappa.dtype, dim)
    below, above, logs, ratio, variance, *bend = _expansion(x, order, table, slope)

    # Down: I_n = (c / x) I_{n+1} + I_{n+2} with c = 2 n + 2. Instead of A it is A / x that is
    # carried, so that x may be zero, and 1 - A apart, so that it does not cancel.
    x2, ratios = x.square(), []
    factors = x.new_tensor([2.0 * (order - j) for j in range(steps)])
    for c in factors.unbind(0):
        ratios.append(ratio)
        tail = torch.addcmul(c, x, variance, value=-1)
        ratio = (x + tail).reciprocal()
        variance = tail * ratio
        bend = [torch.addcmul(c, x2, b, value=-1) * ratio.square() for b in bend]
    if ratios:
        rises = torch.stack(ratios, -1) / factors
        logs = logs - (x2.unsqueeze(-1) * rises).log1p().sum(-1)
    return (below - logs, above + logs, x * ratio, variance, *bend)


def _expansion(x: Tensor, order: float, table: Tensor, slope: bool) -> list[Tensor]:
    """Return g + logs, kappa - g - logs, logs, A / x, 1 - A and maybe A', of the given order."""
    z = x / order
    z2 = z.square()
    s = (z2 + 1.0).sqrt()
    p, q = s.reciprocal(), (s + 1.0).reciprocal()
    w = z2 * q  # s - 1
    monomials = p.reshape(-1).expand(3 * _TERMS - 1, -1).cumprod(0)
    table = table if slope else table[:2]
    rising = torch.addmm(table[:, :1], table[:, 1:], monomials)
    debye = rising.reshape(len(rising), *p.shape)
    logs = order * (0.5 * w).log1p() + 0.5 * w.log1p() + debye[0] * (w * p)
    correction = (debye[1] * p + 0.5) * (p / order).square()
    leading = ((s + z).reciprocal() + 1.0) * q
    found = [order * w, x * leading, logs, q / order - correction, leading + x * correction]
    if slope:
        bend = 0.5 * (1.0 - z2) + (1.0 - 2.0 * z2) * debye[1] * p - z2 * debye[2] * p.square()
        found.append((p * q - bend * p.square().square() / order) / order)
    return found


class _Ratios(torch.autograd.Function):
    """The same, with derivatives from the list itself.

    The last is not differentiable, and without ``slope`` neither are the two before it.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(kappa: Tensor, table: Tensor, dim: int, slope: bool) -> tuple[Tensor, ...]:
        # Blocks for the sake of the powers, of which there are thirty times as many.
        kernel = partial(_evaluate, table=table, dim=dim, slope=slope)
        return blockwise(kernel, kappa, block=4000)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, bool], output: Any) -> None:
        kappa, table, ctx.dim, slope = inputs
        ctx.save_for_backward(kappa, table, *output[2:])
        ctx.mark_non_differentiable(*output[4 if slope else 2 :])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        kappa, table, resultant, variance, *bend = ctx.saved_tensors
        if torch.is_grad_enabled():  # for derivatives of higher order
            resultant, variance = _Ratios.apply(kappa, table, ctx.dim, True)[2:4]
            bend = [_evaluate(kappa, table, ctx.dim, True)[4]] if bend else []
        slopes = [resultant, variance, *bend, *(-b for b in bend)]
        terms = [g * s for g, s in zip(grads, slopes, strict=False) if g is not None]
        return (sum(terms[1:], terms[0]).to(kappa.dtype) if terms else None), None, None, None


def bessel_ratios(concentration: Tensor, ambient_dim: int, *, slope: bool) -> tuple[Tensor, ...]:
    r"""Return :math:`g, \kappa - g, A, 1 - A` and, with ``slope``, :math:`A'`, all in float64.

    It costs little more than one of the functions below, which say what they are.

    Args:
        concentration: Concentrations :math:`\kappa \ge 0`, of any shape. Values from float32 ask
            for no more than its precision.
        ambient_dim: Dimension :math:`d \ge 2` of the space that the sphere lies in.
        slope: Whether A and 1 - A are differentiated. The last is not differentiable.

    Example:
        >>> torch.stack(bessel_ratios(torch.tensor(2.0), 5, slope=True))
        tensor([0.3795, 1.6205, 0.3611, 0.6389, 0.1474], dtype=torch.float64)
    """
    dim = int(ambient_dim)  # torch.jit.trace makes a tensor of the size of a dimension
    return apply(_Ratios, concentration, _coefficients(concentration, dim), dim, slope)


def log_normalizer(concentration: Tensor, ambient_dim: int) -> Tensor:
    r"""Return :math:`g(\kappa) = \log E\, e^{\kappa \mu \cdot x}` for uniform x.

    Args:
        concentration: Concentrations :math:`\kappa \ge 0`, of any shape.
        ambient_dim: Dimension :math:`d \ge 2` of the space that the sphere lies in.

    Example:
        >>> log_normalizer(torch.tensor([0.0, 1e-3, 2.0]), 5)
        tensor([0.0000e+00, 1.0000e-07, 3.7951e-01])
    """
    return bessel_ratios(concentration, ambient_dim, slope=False)[0].to(concentration.dtype)


def scaled_log_normalizer(concentration: Tensor, ambient_dim: int) -> Tensor:
    r"""Return :math:`g(\kappa) - \kappa`, without cancellation where both are large.

    The first derivative is :math:`A(\kappa) - 1` and the second :math:`A'(\kappa)`.

    Args:
        concentration: Concentrations :math:`\kappa \ge 0`, of any shape.
        ambient_dim: Dimension :math:`d \ge 2` of the space that the sphere lies in.

    Example:
        >>> scaled_log_normalizer(torch.tensor([1e-3, 2.0, 1e8]), 5)
        tensor([-9.9990e-04, -1.6205e+00, -3.6436e+01])
    """
    return -bessel_ratios(concentration, ambient_dim, slope=False)[1].to(concentration.dtype)


def mean_resultant(concentration: Tensor, ambient_dim: int) -> Tensor:
    r"""Return the mean resultant length :math:`A(\kappa) = I_{d/2}(\kappa) / I_{d/2-1}(\kappa)`.

    Args:
        concentration: Concentrations :math:`\kappa \ge 0`, of any shape.
        ambient_dim: Dimension :math:`d \ge 2` of the space that the sphere lies in.

    Example:
        >>> mean_resultant(torch.tensor([0.0, 2.0, 1e8]), 5)
        tensor([0.0000, 0.3611, 1.0000])
    """
    return bessel_ratios(concentration, ambient_dim, slope=True)[2].to(concentration.dtype)


def spherical_variance(concentration: Tensor, ambient_dim: int) -> Tensor:
    r"""Return :math:`1 - A(\kappa)` without cancellation, where A is :func:`mean_resultant`.

    Args:
        concentration: Concentrations :math:`\kappa \ge 0`, of any shape.
        ambient_dim: Dimension :math:`d \ge 2` of the space that the sphere lies in.

    Example:
        >>> spherical_variance(torch.tensor([0.0, 2.0, 1e8]), 5)
        tensor([1.0000e+00, 6.3889e-01, 2.0000e-08])
    """
    return bessel_ratios(concentration, ambient_dim, slope=True)[3].to(concentration.dtype)


def resultant_slope(concentration: Tensor, ambient_dim: int) -> Tensor:
    r"""Return :math:`A'(\kappa)`, the variance of :math:`\mu \cdot x`.

    The textbook form :math:`1 - A^2 - (d - 1) A / \kappa` is a difference of terms near one: in
    float32, at a concentration of 1e4, no digit of it is right.

    Args:
        concentration: Concentrations :math:`\kappa \ge 0`, of any shape.
        ambient_dim: Dimension :math:`d \ge 2` of the space that the sphere lies in.

    Example:
        >>> resultant_slope(torch.tensor([0.0, 2.0, 1e4]), 5)
        tensor([2.0000e-01, 1.4739e-01, 1.9998e-08])
    """
    table = _coefficients(concentration, ambient_dim)
    slope = _evaluate(concentration, table, ambient_dim, slope=True)[4]
    return slope.to(concentration.dtype)
