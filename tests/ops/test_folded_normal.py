"""The divergence that folding saves, against quadrature by mpmath."""

import warnings

import mpmath
import pyro
import pytest
import torch
from torch.testing import assert_close

from pyro_manifolds.ops.folded_normal import folding_loss

RATIOS = (-7.5, -1.0, -0.02, 0.0, 1e-6, 0.3, 1.7, 4.0, 12.0, 25.0, 1e4)


def expected(ratio):
    def integrand(e):
        return mpmath.npdf(e) * mpmath.log1p(mpmath.exp(-2 * ratio * (ratio + e)))

    peak = -abs(ratio)
    return float(mpmath.quad(integrand, [-40, peak - 1, peak, peak + 1, 20]) if peak > -30 else 0)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 2e-12), (torch.float32, 1e-6)])
def test_matches_quadrature(dtype, error):
    """24 nodes reach 1e-12; in float32 the rounding of exponents up to 20 leaves 7e-7."""
    found = folding_loss(torch.tensor(RATIOS, dtype=dtype)).double()
    truth = torch.tensor([expected(ratio) for ratio in RATIOS], dtype=torch.float64)
    assert_close(found, truth, atol=error, rtol=0)


def test_derivatives():
    ratio = torch.linspace(-4, 4, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(folding_loss, ratio)
    assert torch.autograd.gradgradcheck(folding_loss, ratio)


def test_maps_and_compiles():
    ratio = torch.linspace(-3, 3, 7)
    slopes = torch.func.vmap(torch.func.grad(folding_loss))(ratio)
    whole = ratio.clone().requires_grad_()
    (expected_slopes,) = torch.autograd.grad(folding_loss(whole).sum(), whole)
    assert_close(slopes, expected_slopes)
    compiled = torch.compile(folding_loss, fullgraph=True, backend="aot_eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # dynamo's own, on custom functions
        assert_close(compiled(whole), folding_loss(whole))
    pyro.enable_validation(True)  # torch.compile switches it off
