import math

import pytest
import torch
from torch.testing import assert_close

from pyro_manifolds.ops.trapezoid import spread_nodes


def double(x):
    return torch.tensor(x, dtype=torch.float64)


@pytest.mark.parametrize("width", [1.0, 3.0])
def test_integrates_a_peak_with_a_long_tail(width):
    """The density of the logarithm of a gamma variable of shape a falls by e^(a x) to the left."""
    shape = double([0.5, 3.0, 400.0])
    peak = shape.log()
    x, weight = spread_nodes(36 / shape + 9 / shape.sqrt(), 9 / shape.sqrt() + 3 / shape.sqrt(),
                             width / shape.sqrt(), 110)  # fmt: skip
    assert x.shape == weight.shape == (110, 3)
    log_density = shape * (x + peak) - (x + peak).exp() - shape.lgamma()
    assert_close((log_density.exp() * weight).sum(0), torch.ones_like(shape), rtol=0, atol=1e-10)


def test_nodes_reach_from_end_to_end_and_are_dense_at_zero():
    x, weight = spread_nodes(double(10.0), double(40.0), double(1.0), 101)
    assert_close(x[[0, -1]], double([-10.0, 40.0]))
    # Weights are the derivative of the nodes by their number.
    assert_close(x.diff(), (weight[1:] + weight[:-1]) / 2, rtol=0.01, atol=0)
    assert math.isclose(weight[x.abs().argmin()], weight.min(), rel_tol=1e-12)
    assert weight.max() > 5 * weight.min()
