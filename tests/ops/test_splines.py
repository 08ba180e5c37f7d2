"""Splines against another implementation, their own definition, and the extremes."""

import math

import pytest
import torch
from torch.testing import assert_close
from zuko.transforms import MonotonicRQSTransform

from pyro_manifolds.ops.splines import rational_quadratic, rational_quadratic_inverse, spline_of

BOUND, BINS = math.pi, 6


def random_spline(periodic, std=1.0, batch=(40,), dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = (BINS, BINS, BINS + (not periodic))
    draws = [std * torch.randn(*batch, n, dtype=dtype, generator=generator) for n in sizes]
    return spline_of(*draws, BOUND)


def inside(batch=(200, 40), dtype=torch.float64):
    return BOUND * (2 * torch.rand(batch, dtype=dtype) - 1)


def knots(spline):
    """Horizontal and vertical positions of all knots, and the slopes there."""
    bound = torch.full_like(spline.left[..., :1], BOUND)
    slopes = torch.cat([spline.slope_left, spline.slope_right[..., -1:]], -1)
    return torch.cat([spline.left, bound], -1), torch.cat([spline.bottom, bound], -1), slopes


periodic = pytest.mark.parametrize("periodic", [True, False])


@periodic
def test_values_slopes_and_inverse_are_those_of_zuko_at_the_same_knots(periodic):
    spline, x = random_spline(periodic), inside()
    peer = MonotonicRQSTransform(*torch.zeros(3, 2), bound=BOUND)
    peer.horizontal, peer.vertical, peer.derivatives = knots(spline)
    y, log_slope = rational_quadratic(x, spline)
    expected, expected_log_slope = peer.call_and_ladj(x)
    assert_close(y, expected, rtol=0, atol=1e-13)
    assert_close(log_slope, expected_log_slope, rtol=0, atol=1e-12)
    assert_close(rational_quadratic_inverse(x, spline), peer.inv(x), rtol=0, atol=1e-11)


@periodic
def test_knots_are_met_with_their_slopes(periodic):
    spline = random_spline(periodic)
    left, bottom, slopes = knots(spline)
    for side in (-1e-9, 1e-9):
        nodes = (left + side).clamp(-BOUND, BOUND).mT
        y, log_slope = rational_quadratic(nodes, spline)
        assert_close(y, bottom.mT, rtol=0, atol=1e-6)
        assert_close(log_slope.exp(), slopes.mT, rtol=1e-5, atol=0)
    if periodic:
        assert torch.equal(slopes[..., 0], slopes[..., -1])


def test_zeros_make_the_identity():
    zeros = torch.zeros(BINS, dtype=torch.float64)
    spline, x = spline_of(zeros, zeros, zeros, BOUND), inside((500,))
    y, log_slope = rational_quadratic(x, spline)
    assert_close(y, x, rtol=0, atol=1e-14)
    assert_close(log_slope, torch.zeros_like(x), rtol=0, atol=1e-14)


def test_beyond_the_ends_the_spline_is_straight_with_the_slope_of_the_end():
    spline = random_spline(periodic=False)
    _, _, slopes = knots(spline)
    for end, slope in ((-BOUND, slopes[..., 0]), (BOUND, slopes[..., -1])):
        x = torch.full((40,), 3 * end, dtype=torch.float64)
        y, log_slope = rational_quadratic(x, spline)
        assert_close(y, end + 2 * end * slope)
        assert_close(log_slope, slope.log())
        assert_close(rational_quadratic_inverse(y, spline), x)


@periodic
def test_the_logarithm_of_the_slope_is_that_of_the_derivative(periodic):
    spline, x = random_spline(periodic), inside().requires_grad_()
    y, log_slope = rational_quadratic(x, spline)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert_close(log_slope, slope.log(), rtol=0, atol=1e-11)


def test_derivatives_by_all_arguments_agree_with_finite_differences():
    raw = [torch.randn(3, n, dtype=torch.float64, requires_grad=True) for n in (4, 4, 5)]
    x = inside((3,)).requires_grad_()

    def forward(x, *raw):
        return rational_quadratic(x, spline_of(*raw, BOUND))

    def inverse(x, *raw):
        return rational_quadratic_inverse(x, spline_of(*raw, BOUND))

    for function in (forward, inverse):
        assert torch.autograd.gradcheck(function, (x, *raw), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("std", [0.3, 3.0, 1e4])
def test_at_any_knots_everything_is_finite_and_the_inverse_returns_to_the_value(dtype, std):
    raw = [std * torch.randn(500, BINS, dtype=dtype) for _ in range(3)]
    raw = [value.requires_grad_() for value in raw]
    spline = spline_of(*raw, BOUND)
    y = torch.cat([inside((200, 500), dtype), torch.tensor([[-BOUND], [0], [BOUND]]).to(dtype)
                   .expand(3, 500), spline.bottom.detach().mT]).requires_grad_()  # fmt: skip
    x = rational_quadratic_inverse(y, spline)
    again, log_slope = rational_quadratic(x, spline)
    # The value is as exact as x can be stored, times the slope.
    atol = 2e-4 if dtype == torch.float32 else 4e-13
    assert_close(again, y, rtol=0, atol=atol)
    for result in (x, again, log_slope):
        gradients = torch.autograd.grad(result.sum(), [y, *raw], retain_graph=True)
        assert all(bool(g.isfinite().all()) for g in (result, *gradients))
