"""Mixtures against a plain logsumexp over the components, with all derivatives."""

import pytest
import torch
from torch.testing import assert_close

from pyro_manifolds.ops import square_mixtures
from pyro_manifolds.ops.square_mixtures import SquareMixture


def example(n=40, m=3, d=6, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    numbers = torch.randn(n, m), torch.randn(m, d), torch.rand(n), torch.randn(n)
    return [x.to(dtype) for x in numbers]


def plain(x, coordinates, basis, gain, offset):
    squares = ((x[..., None, :] * (coordinates @ basis)).sum(-1)) ** 2
    return (offset + gain * squares).exp().sum(-1).log() - 0.5 * (x**2).sum(-1)


@pytest.mark.parametrize("batch", [(), (7,), (2, 5, 3)])
@pytest.mark.parametrize("shared", [True, False])
def test_values_and_derivatives(batch, shared):
    coordinates, basis, gain, offset = example()
    gain = gain if shared else gain.expand((*batch, 40)).clone()
    leaves = [torch.randn(*batch, 6).double(), basis, gain, offset]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    weights = torch.randn(batch, dtype=torch.float64)
    found = SquareMixture(coordinates, *leaves[1:])(leaves[0])
    expected = plain(leaves[0], coordinates, *leaves[1:])
    assert_close(found, expected, atol=1e-12, rtol=1e-12)
    gradients = [torch.autograd.grad((v * weights).sum(), leaves) for v in (found, expected)]
    assert_close(*gradients, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("trained", ["x", "table", "all"])
def test_second_derivatives(trained):
    coordinates, basis, gain, offset = example(n=10)
    x = torch.randn(3, 6, dtype=torch.float64)
    leaves = {"x": [x], "table": [gain, offset], "all": [x, basis, gain, offset]}[trained]
    for leaf in leaves:
        leaf.requires_grad_()

    def value(*_):
        return SquareMixture(coordinates, basis, gain, offset)(x)

    assert torch.autograd.gradgradcheck(value, leaves)


@pytest.mark.parametrize("trained", ["x", "basis", "gain"])
def test_forward_and_nested_derivatives(trained):
    coordinates, basis, gain, offset = example(n=10)
    torch.manual_seed(1)
    x = 0.3 * torch.randn(3, 6, dtype=torch.float64)
    point = {"x": x, "basis": basis, "gain": gain}[trained]

    def value(free, mixture):
        given = {"x": x, "basis": basis, "gain": gain} | {trained: free}
        return mixture(given["x"], coordinates, given["basis"], given["gain"], offset).sum()

    def ours(free):
        return value(free, lambda x, *parts: SquareMixture(*parts)(x))

    expected = torch.autograd.functional.hessian(lambda free: value(free, plain), point)
    jacfwd, jacrev = torch.func.jacfwd, torch.func.jacrev
    for nested in (jacfwd(jacrev(ours)), jacrev(jacrev(ours)), jacrev(jacfwd(ours))):
        assert_close(nested(point), expected, atol=1e-10, rtol=1e-10)
    with pytest.raises(NotImplementedError, match=r"expected one forward derivative"):
        jacfwd(jacfwd(ours))(point)


def test_blocks_are_one_whole(monkeypatch):
    parts, x = example(), torch.randn(50, 6, dtype=torch.float64, requires_grad=True)
    parts[2].requires_grad_()
    results = []
    for size in (1, 200, 10**9):
        monkeypatch.setattr(square_mixtures, "_BLOCK", size)
        value = SquareMixture(*parts)(x)
        results.append((value, *torch.autograd.grad(value.sum(), [x, parts[2]])))
    assert_close(results[0], results[2], atol=1e-12, rtol=1e-12)
    assert_close(results[1], results[2], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.0, 1e-18, 1.0, 1e4])
def test_far_values_do_not_overflow(dtype, scale):
    parts = example(dtype=dtype)
    x = (scale * torch.randn(5, 6, dtype=dtype)).requires_grad_()
    value = SquareMixture(*parts)(x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    assert value.dtype == dtype
    assert value.isfinite().all()
    assert slope.isfinite().all()


def test_single_precision_is_that_of_the_sum():
    parts = example()
    x = torch.randn(100, 6, dtype=torch.float64)
    exact = SquareMixture(*parts)(x)
    rounded = SquareMixture(*[part.float() for part in parts])(x.float())
    assert_close(rounded.double(), exact, atol=2e-5, rtol=1e-5)


def test_no_rows():
    assert SquareMixture(*example())(torch.zeros(0, 6, dtype=torch.float64)).shape == (0,)
