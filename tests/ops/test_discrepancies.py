"""Discrepancies of samples: against mpmath, sums over pairs, and distribution functions."""

import itertools
import math

import pytest
import torch
from scipy.stats import energy_distance as energy_distance_1d
from torch.testing import assert_close

from pyro_manifolds.ops.discrepancies import (
    energy_distance,
    energy_distance_test,
    imq_kernel,
    rbf_kernel,
    squared_mmd,
)

X = torch.tensor([[0.0], [0.5], [1.0]], dtype=torch.float64)
Y = torch.tensor([[0.1], [0.4], [0.8]], dtype=torch.float64)
KERNELS = {"imq": imq_kernel(1, 1 / 12), "rbf": rbf_kernel([0.1, 0.3, 1.0])}
# Worked out with 30 digits in mpmath.
VALUES = {"imq": -1.90704002376086, "rbf": -0.824742872620168}


@pytest.mark.parametrize("name", KERNELS)
def test_mmd_has_the_value_of_an_exact_computation(name):
    assert_close(squared_mmd(X, Y, KERNELS[name]).item(), VALUES[name], rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", KERNELS)
def test_mmd_is_the_sum_over_pairs(name):
    torch.manual_seed(0)
    x, y = torch.randn(5, 3).double(), torch.randn(7, 3).double()
    kernel = KERNELS[name]

    def mean(pairs):
        values = [kernel((a - b).square().sum()) for a, b in pairs]
        return sum(values) / len(values)

    expected = mean(itertools.permutations(x, 2)) + mean(itertools.permutations(y, 2))
    expected = expected - 2 * mean(itertools.product(x, y))
    assert_close(squared_mmd(x, y, kernel), expected)


def test_mmd_of_equal_laws_is_zero_in_the_mean_and_of_others_is_not():
    torch.manual_seed(0)
    kernel = imq_kernel(2, 1 / 12)
    same = torch.stack(
        [squared_mmd(torch.rand(50, 2), torch.rand(50, 2), kernel) for _ in range(300)]
    )
    assert abs(same.mean()) < 4 * same.std() / math.sqrt(300)
    other = squared_mmd(torch.rand(200, 2), torch.rand(200, 2).square(), kernel)
    assert other > 5 * same.std()


def test_heavy_tails_have_a_gradient_from_afar():
    far = torch.full((5, 1), 50.0) + torch.arange(5.0).unsqueeze(-1)
    pulls = {}
    for name, kernel in (("imq", imq_kernel(1)), ("rbf", rbf_kernel())):
        x = far.clone().requires_grad_()
        squared_mmd(x, torch.zeros(5, 1), kernel).backward()
        pulls[name] = x.grad.mean().item()  # what keeps the points apart cancels
    assert pulls["imq"] > 1e-4
    assert abs(pulls["rbf"]) < 1e-6


def test_energy_distance_in_one_dimension_is_that_of_distribution_functions():
    torch.manual_seed(0)
    x, y = torch.randn(40).double(), 0.5 + torch.randn(60).double()
    biased = energy_distance_1d(x.numpy(), y.numpy()) ** 2
    # The plain mean of distances counts each point's distance to itself.
    excess = 0.0
    for z in (x, y):
        n, total = len(z), (z.unsqueeze(-1) - z).abs().sum()
        excess += total * (1 / (n * (n - 1)) - 1 / n**2)
    value = energy_distance(x.unsqueeze(-1), y.unsqueeze(-1))
    assert_close(value, biased - excess)


def test_permutations_have_the_distance_of_what_they_deal_out():
    torch.manual_seed(0)
    x, y = torch.randn(20, 2).double(), torch.randn(30, 2).double()
    value, null = energy_distance_test(x, y, 50)
    assert_close(value, energy_distance(x, y))
    assert null.shape == (50,)
    assert_close(energy_distance_test(x, y, 50)[1], null)  # seeded


def test_share_of_false_alarms_is_as_stated():
    torch.manual_seed(0)
    alarms = 0
    for _ in range(100):
        value, null = energy_distance_test(torch.randn(20, 2), torch.randn(20, 2), 100)
        alarms += int(value > null.quantile(0.95))
    assert abs(alarms - 5) < 4 * math.sqrt(100 * 0.05 * 0.95)


@pytest.mark.parametrize("shapes", [((1, 2), (5, 2)), ((5, 2), (5, 3)), ((5,), (5, 1))], ids=str)
@pytest.mark.parametrize(
    "discrepancy",
    [energy_distance, energy_distance_test, lambda x, y: squared_mmd(x, y, rbf_kernel())],
)
def test_samples_of_wrong_shape_are_refused(shapes, discrepancy):
    x, y = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=r"expected . of shape \(n, d\) with n >= 2"):
        discrepancy(x, y)
