"""Wrapping at rounding edges, and angles of vectors of any length."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from pyro_manifolds import Circle, KleinBottle, MoebiusBand, Torus
from pyro_manifolds.ops.angles import angle_of, parity, turns, wrap

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
SIZES = {torch.float32: [1e-37, 1e-20, 1.0, 1e20, 3e38], torch.float64: [1e-307, 1e-200, 1e300]}


@DTYPES
def test_wrap_lands_in_the_half_open_interval_at_rounding_edges(dtype):
    edges = math.pi * torch.arange(-9, 10, dtype=dtype)
    up, down = torch.full_like(edges, math.inf), torch.full_like(edges, -math.inf)
    x = torch.cat([edges, edges.nextafter(up), edges.nextafter(down), edges * 1000])
    wrapped = wrap(x)
    end = torch.tensor(math.pi, dtype=dtype)
    assert ((wrapped >= -end) & (wrapped < end)).all()
    # Both sides agree as points of the circle, up to the rounding of the multiple of the period.
    moved = wrapped.double() - x.double()
    error = moved - 2 * math.pi * torch.round(moved / (2 * math.pi))
    assert (error.abs() <= 4 * torch.finfo(dtype).eps * x.abs().clamp(min=1)).all()


def test_wrap_has_derivative_one_and_turns_none():
    x = torch.tensor([-7.0, math.pi, 20.0], requires_grad=True)
    (slope,) = torch.autograd.grad(wrap(x).sum(), x)
    assert_close(slope, torch.ones(3))
    assert not turns(x).requires_grad


def test_parity_is_the_sign_of_a_whole_power_of_minus_one():
    assert_close(parity(torch.arange(-4.0, 4.0)), torch.tensor([1.0, -1.0] * 4))


@DTYPES
def test_angle_of_agrees_with_atan2_at_every_length_and_quadrant(dtype):
    exact = torch.linspace(-3.1, 3.1, 63, dtype=torch.float64)
    for size in SIZES[dtype]:
        y, x = ((size * f(exact)).to(dtype) for f in (torch.sin, torch.cos))
        expected = torch.atan2(y.double(), x.double()).to(dtype)
        assert_close(angle_of(y, x), expected, rtol=2 * torch.finfo(dtype).eps, atol=0)


@DTYPES
def test_angle_of_has_the_gradient_of_the_inverse_length(dtype):
    for size in SIZES[dtype]:
        a = torch.tensor([0.6 * size, -0.8 * size], dtype=dtype, requires_grad=True)
        (slope,) = torch.autograd.grad(angle_of(a[1], a[0]), a)
        assert_close(slope * size, torch.tensor([0.8, 0.6], dtype=dtype), rtol=1e-6, atol=0)


@DTYPES
def test_angle_of_the_origin_is_zero_with_gradient_zero(dtype):
    denormal = torch.finfo(dtype).smallest_normal / 64
    a = torch.tensor([[0.0, 0.0], [-denormal, denormal]], dtype=dtype, requires_grad=True)
    angle = angle_of(a[:, 1], a[:, 0])
    (slope,) = torch.autograd.grad(angle.sum(), a)
    assert angle.tolist() == [0, 0]
    assert not slope.any()


def test_angle_of_keeps_infinite_entries_and_propagates_nan():
    y, x = torch.tensor([math.inf, 1.0, math.nan]), torch.tensor([1.0, -math.inf, 1.0])
    assert_close(angle_of(y, x), torch.atan2(y, x), equal_nan=True)


def test_angle_of_has_correct_first_and_second_derivatives():
    a = torch.randn(2, 20, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda a: angle_of(*a), a)
    assert gradgradcheck(lambda a: angle_of(*a), a)


@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-38, 1e-30, 1e-20, 1e30])
@pytest.mark.parametrize(
    "manifold", [Circle(), Torus(3), KleinBottle(), MoebiusBand(), MoebiusBand(math.inf)], ids=repr
)
def test_unembed_and_its_gradient_are_finite_in_float32_for_ambient_vectors_of_any_length(
    manifold, size
):
    a = (size * torch.randn(50, manifold.embed_dim)).requires_grad_()
    y = manifold.unembed(a)
    (slope,) = torch.autograd.grad(y.sum(), a)
    assert manifold.contains(y).all()
    assert slope.isfinite().all()
