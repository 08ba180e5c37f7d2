r"""The normal distribution wrapped on a circle: density, scores and divergence, at every scale.

The density of :math:`\text{loc} + s\varepsilon` modulo the period is a sum over windings, which
converges fast for small :math:`s`, and equally (Poisson summation; Mardia and Jupp, Directional
Statistics, 2000) a Fourier series, which converges fast for large :math:`s`. Both are cut where
the remainder falls below the resolution of the dtype: the cost does not depend on the scale.
"""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import threshold

from pyro_manifolds.ops.blocks import blockwise
from pyro_manifolds.ops.function import apply

__all__ = ["wrapped_normal_kl_to_uniform", "wrapped_normal_log_prob"]

_LOG_2PI = math.log(2 * math.pi)


def wrapped_normal_log_prob(
    difference: Tensor, scale: Tensor, period: float = 2 * math.pi
) -> Tensor:
    r"""Log-density of a wrapped normal, with respect to length, elementwise.

    Args:
        difference: Value minus location, any representative.
        scale: Standard deviation before wrapping, positive; broadcasts with ``difference``.
        period: Length of the circle.

    Returns:
        :math:`\log \sum_k N(\text{difference} + k\,\text{period}; 0, \text{scale}^2)`.

    Example:
        >>> wrapped_normal_log_prob(torch.tensor(1.0), torch.tensor(0.5))
        tensor(-2.2258)
    """
    ratio = 2 * math.pi / period
    if ratio != 1:
        return wrapped_normal_log_prob(ratio * difference, ratio * scale) + math.log(ratio)
    if torch.is_grad_enabled() and (difference.requires_grad or scale.requires_grad):
        return apply(_LogProb, difference, scale)[0]
    return blockwise(partial(_log_prob, scores=False), difference, scale)[0]


class _LogProb(torch.autograd.Function):
    """Density of period 2 pi that shares its terms with its gradient: cheaper than autograd's."""

    generate_vmap_rule = True

    @staticmethod
    def forward(difference: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        return blockwise(_log_prob, difference, scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs, *output[1:])
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, *unused: None
    ) -> tuple[Tensor | None, Tensor | None]:
        if grad is None:
            return None, None
        difference, scale, *scores = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives, which autograd takes of the kernel
            scores = blockwise(_log_prob, difference, scale)[1:]
        return (
            (grad * scores[0]).sum_to_size(difference.shape),
            (grad * scores[1]).sum_to_size(scale.shape),
        )


def _log_prob(difference: Tensor, scale: Tensor, scores: bool = True) -> tuple[Tensor, ...]:
    """Return the log-density and, with ``scores``, its derivatives by difference and by scale.

    Both series are evaluated everywhere, and the unwanted one is silenced by a factor of zero: the
    rate of the windings above the switch, the amplitude of the waves below it. That is many times
    faster than ``torch.where``, and no unused infinity can reach a gradient.
    """
    # One winding suffices below the switch and so many waves above it: error 1e-15 or 4e-9.
    switch, frequencies = (1.0, 8) if scale.dtype == torch.float64 else (1.55, 3)
    large = (scale.detach() - switch).sign().clamp(min=0)
    small = 1 - large
    turns = (difference.detach() / (2 * math.pi)).round()
    d = torch.sub(difference, turns, alpha=2 * math.pi)

    # Windings -1 and +1, relative to winding 0.
    rate = small / scale
    pull = 2 * math.pi * rate.square()
    near, far = _exp(pull * (d - math.pi)), _exp(pull * (-math.pi - d))
    both, z = near + far, d * rate
    z2 = z.square()
    # Waves of frequency n: p^(n^2) 2 cos(n d).
    amplitudes = _amplitudes(large * _exp(-0.5 * scale.square()), frequencies)
    cosine = 2 * d.cos()
    waves = _waves(amplitudes, cosine, 2.0, cosine)

    total = torch.addcmul(1 + _combine(waves, 0), small, both)
    value = (total * torch.add(large, rate, alpha=math.sqrt(2 * math.pi))).log() - _LOG_2PI
    value = torch.sub(value, z2, alpha=0.5)
    if not scores:
        return (value,)

    inverse, apart = total.reciprocal(), near - far
    slope = _combine(_waves(amplitudes, cosine, 0.0, -2 * d.sin()), 1)
    slope = torch.addcmul(slope, pull, apart) * inverse
    lever = torch.sub(d * apart, both, alpha=math.pi)
    spread = torch.addcmul(z2 - small, pull * inverse, lever, value=-2)
    curvature = _combine(waves, 2) * scale
    return (
        value,
        torch.addcmul(slope, z, rate, value=-1),
        torch.addcmul(rate * spread, curvature, inverse, value=-1),
    )


def _exp(x: Tensor) -> Tensor:
    """Exponential of ``x <= 0``, at least 8e-31, by the fastest of torch's exponentials.

    Processors are ten times slower on the denormal numbers that lie further down. The upper
    clamp is for a wrapped difference that exceeds pi by its last digit.
    """
    return (x * math.log2(math.e)).clamp(-100.0, 0.0).exp2()


def _amplitudes(p: Tensor, count: int) -> list[Tensor]:
    """Return ``p ** (n * n)`` for ``n`` from one."""
    # Where the square of the second is below the resolution it is zero, before it is denormal.
    power = q = threshold(p, torch.finfo(p.dtype).eps ** (1 / 3), 0.0)
    amplitudes, q2 = [p], q.square()
    for _ in range(count - 1):
        power = power * q2
        q = q * power
        amplitudes.append(q)
    return amplitudes


def _waves(amplitudes: list[Tensor], cosine: Tensor, before: Any, wave: Tensor) -> list[Tensor]:
    """Return ``amplitudes[n - 1] * wave(n d)`` by the recurrence of sines and cosines.

    ``cosine`` is 2 cos d, ``before`` and ``wave`` are those of frequency zero and one.
    """
    waves = [amplitudes[0] * wave]
    for amplitude in amplitudes[1:]:
        before, wave = wave, cosine * wave - before
        waves.append(amplitude * wave)
    return waves


def _combine(waves: list[Tensor], power: int) -> Tensor:
    """Return the sum of ``n ** power * waves[n - 1]``."""
    total = waves[0]
    for n, wave in enumerate(waves[1:], 2):
        total = torch.add(total, wave, alpha=n**power)
    return total


def wrapped_normal_kl_to_uniform(scale: Tensor, period: float = 2 * math.pi) -> Tensor:
    r"""Kullback-Leibler divergence from a wrapped normal to the uniform distribution, elementwise.

    From the Jacobi triple product, with :math:`q = e^{-s^2}` and :math:`s` in radians,

    .. math::
        \sum_{n \ge 1} \log(1 - q^n)
        - 2 \sum_{k \ge 1} \frac{(-1)^k q^{k(k+1)/2}}{k (1 - q^k)}

    Below 0.38 the wrapping is beneath the resolution of float64 and the Gaussian entropy exact.
    The absolute error is below 2e-14, and the relative error below 1e-12 for large scales.

    Args:
        scale: Standard deviation before wrapping, positive.
        period: Length of the circle.

    Example:
        >>> wrapped_normal_kl_to_uniform(torch.tensor([0.1, 1.0, 2.0]))
        tensor([2.7215, 0.4238, 0.0185])
    """
    s = 2 * math.pi / period * scale.double()
    gaussian = _LOG_2PI - 0.5 * (1 + _LOG_2PI) - s.log()
    middle, large = s.clamp(0.38, 1.8), s.clamp(1.8, 40.0)
    below = _log_product_dual(middle) - _series(middle, 24)
    above = _log_product(large, 12) - _series(large, 4)
    kl = torch.where(s < 0.38, gaussian, torch.where(s < 1.8, below, above))
    return kl.to(scale.dtype)


def _orders(s: Tensor, terms: int) -> Tensor:
    return torch.arange(1, terms + 1, dtype=s.dtype, device=s.device)


def _series(s: Tensor, terms: int) -> Tensor:
    k = _orders(s, terms)
    a = s.square().unsqueeze(-1)
    numerator = (1 - 2 * (k % 2)) * (-0.5 * a * k * (k + 1)).exp()
    return 2 * (numerator / (-k * torch.expm1(-a * k))).sum(-1)


def _log_product(s: Tensor, terms: int) -> Tensor:
    """Return the logarithm of the Euler function of exp(-s^2), for large ``s``."""
    return torch.log1p(-(-s.square().unsqueeze(-1) * _orders(s, terms)).exp()).sum(-1)


def _log_product_dual(s: Tensor) -> Tensor:
    """Return the same for small ``s``, by the modular transformation of Dedekind's eta."""
    a = s.square()
    tail = torch.log1p(-(-4 * math.pi**2 * _orders(s, 4) / a.unsqueeze(-1)).exp()).sum(-1)
    return 0.5 * (2 * math.pi / a).log() - math.pi**2 / (6 * a) + a / 24 + tail
