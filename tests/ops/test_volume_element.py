"""Jacobians, volume elements and preimages, against formulas and finite differences."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from pyro_manifolds.ops.gauss_newton import gauss_newton
from pyro_manifolds.ops.tangent_frame import rotation_frame, tangent_frame
from pyro_manifolds.ops.volume_element import (
    half_log_det_gram,
    half_log_det_gram_surrogate,
    jacobian,
    push_forward,
)


def network(m, n, dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(m, 16), nn.Tanh(), nn.Linear(16, n)).to(dtype)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 3), (2, 5), (3, 4), (5, 9)])
def test_jacobian_against_central_differences(m, n):
    net, z, h = network(m, n), torch.randn(4, 2, m, dtype=torch.float64), 1e-5
    found = jacobian(net, z)
    assert found.shape == (4, 2, n, m)
    for i, step in enumerate(h * torch.eye(m, dtype=torch.float64)):
        difference = (net(z + step) - net(z - step)) / (2 * h)
        assert_close(found[..., i], difference, atol=1e-9, rtol=0)


def test_vectors_are_pushed_by_the_jacobian():
    net, z = network(3, 5), torch.randn(4, 3, dtype=torch.float64)
    directions = torch.randn(4, 3, 2, dtype=torch.float64)
    assert_close(push_forward(net, z, directions), jacobian(net, z) @ directions)


# On both sides of the number of columns at which the method changes.
@pytest.mark.parametrize("m", [1, 2, 3, 4, 6])
def test_half_log_det_against_the_determinant(m):
    matrix = torch.randn(7, 9, m, dtype=torch.float64)
    expected = torch.linalg.slogdet(matrix.mT @ matrix).logabsdet / 2
    assert_close(half_log_det_gram(matrix), expected)


@pytest.mark.parametrize("m", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("place", [0, -1])
def test_a_collapsed_direction_leaves_no_volume(m, place):
    matrix = torch.randn(7, 9, m, dtype=torch.float64)
    matrix[..., place] = 0
    assert_close(half_log_det_gram(matrix), torch.full((7,), -math.inf, dtype=torch.float64))


@pytest.mark.parametrize("m", [2, 3, 8])
def test_float32_keeps_its_digits_when_columns_are_nearly_parallel(m):
    """The determinant of the product would lose all of them at a condition of 1e4."""
    torch.manual_seed(1)
    q = torch.linalg.qr(torch.randn(50, 40, m, dtype=torch.float64)).Q
    v = torch.linalg.qr(torch.randn(50, m, m, dtype=torch.float64)).Q
    singular = torch.logspace(0, -4, m, dtype=torch.float64)
    matrix = ((q * singular) @ v).float()
    exact = torch.linalg.svdvals(matrix.double()).log().sum(-1)
    # A condition of 1e4 times the resolution of float32, 6e-8, times a small constant.
    assert_close(half_log_det_gram(matrix).double(), exact, atol=3e-3, rtol=0)


@pytest.mark.parametrize("m", [2, 5])
def test_half_log_det_has_correct_gradients(m):
    matrix = torch.randn(3, 6, m, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(half_log_det_gram, (matrix,))


def test_surrogate_has_the_gradient_in_the_mean():
    """The mean over probes against the exact gradient, within five standard errors of each."""
    net, z = network(4, 9), torch.randn(6, 4, dtype=torch.float64)
    weight = net[0].weight
    exact = torch.autograd.grad(half_log_det_gram(jacobian(net, z)).sum(), weight)[0]
    torch.manual_seed(2)
    draws = torch.stack(
        [
            torch.autograd.grad(half_log_det_gram_surrogate(net, z).sum(), weight)[0]
            for _ in range(400)
        ]
    )
    error = draws.std(0) / math.sqrt(len(draws))
    assert bool(((draws.mean(0) - exact).abs() <= 5 * error + 1e-12).all())
    assert (draws.mean(0) - exact).norm() < 0.2 * exact.norm()


def test_surrogate_is_exact_for_orthogonal_columns():
    """Every probe gives the gradient itself where the Jacobian is a multiple of an isometry."""
    scale = torch.tensor(3.0, requires_grad=True)
    half_log_det_gram_surrogate(
        lambda z: scale * z, torch.ones(2, 5), num_probes=2
    ).sum().backward()
    assert_close(scale.grad, torch.tensor(2 * 5 / 3.0))


def test_frames_are_orthonormal_and_tangent():
    x = torch.nn.functional.normalize(torch.randn(50, 4, dtype=torch.float64), dim=-1)
    x[0] = -torch.eye(4, dtype=torch.float64)[0]
    frame = tangent_frame(x)
    assert_close(frame.mT @ frame, torch.eye(3, dtype=torch.float64).expand(50, 3, 3))
    assert_close(x.unsqueeze(-2) @ frame, torch.zeros(50, 1, 3, dtype=torch.float64))


def test_rotation_frame_is_that_of_quaternions():
    """Half the angle: the frame is longer by the square root of eight than a unit of it."""
    rotation = torch.linalg.matrix_exp(
        torch.tensor([[0.0, -0.3, 0.2], [0.3, 0.0, -0.5], [-0.2, 0.5, 0.0]], dtype=torch.float64)
    )
    frame = rotation_frame(rotation)
    assert_close(frame.mT @ frame, 8 * torch.eye(3, dtype=torch.float64))
    for column in frame.mT:
        skew = rotation.mT @ column.unflatten(-1, (3, 3))
        assert_close(skew, -skew.mT)


def test_gauss_newton_finds_preimages_and_their_derivative():
    net = network(2, 7)
    z = torch.randn(20, 2, dtype=torch.float64)
    found = gauss_newton(net, z + 0.05 * torch.randn_like(z), net(z), steps=6)
    assert_close(found, z, atol=1e-9, rtol=0)

    target = net(z).detach().requires_grad_()
    gauss_newton(net, z, target, steps=2).sum().backward()
    expected = torch.linalg.pinv(jacobian(net, z)).sum(-2)
    assert_close(target.grad, expected)


def test_gauss_newton_has_the_derivative_by_parameters():
    """Of the preimage of a fixed value: the scale of the map divides it."""
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([3.0, 4.0], dtype=torch.float64)

    def line(z):
        return scale * z * torch.tensor([0.6, 0.8], dtype=torch.float64)

    z = gauss_newton(line, torch.tensor([2.5], dtype=torch.float64), target, max_step=1.0)
    assert_close(z, torch.tensor([2.5], dtype=torch.float64))  # 5 / 2
    z.sum().backward()
    assert_close(scale.grad, torch.tensor(-1.25, dtype=torch.float64))  # -5 / 2**2
